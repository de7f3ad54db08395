//! NATS servers for tests: started, killed and signalled by their process id.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

/// A server of its own, or one that was there.
pub(crate) enum Server {
    Own(Own),
    There(String),
}

pub(crate) struct Own {
    binary: PathBuf,
    port: u16,
    folder: TempDir,
    tls: bool,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn any() -> Option<Self> {
        Self::own().or_else(|| std::env::var("POSTRIDER_NATS").ok().map(Self::There))
    }

    pub(crate) fn own() -> Option<Self> {
        Self::begin(false)
    }

    /// With TLS, for a certificate of its own, and the login postrider / pass.
    pub(crate) fn with_tls() -> Option<Self> {
        Self::begin(true)
    }

    fn begin(tls: bool) -> Option<Self> {
        let Some(binary) = std::env::var_os("POSTRIDER_NATS_SERVER") else {
            println!("POSTRIDER_NATS_SERVER is not set: nothing of it is tested");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        if tls {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
            std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        }
        let mut server = Self::Own(Own { binary: binary.into(), port, folder, tls, child: None });
        server.start();
        Some(server)
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Own(own) if own.tls => format!("tls://localhost:{}", own.port),
            Self::Own(own) => format!("nats://127.0.0.1:{}", own.port),
            Self::There(address) => address.clone(),
        }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.of_own().folder.path().join("cert.pem")
    }

    /// Starts it, again on the same port.
    pub(crate) fn start(&mut self) {
        let own = self.own_mut();
        let mut command = Command::new(&own.binary);
        command.args(["-a", "127.0.0.1", "-p", &own.port.to_string()]);
        if own.tls {
            let file = |name| own.folder.path().join(name);
            command.arg("--tls").arg("--tlscert").arg(file("cert.pem")).arg("--tlskey").arg(file("key.pem"));
            command.args(["--user", "postrider", "--pass", "pass"]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        own.child = Some(command.spawn().unwrap());
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", own.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.own_mut().child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.of_own().child.as_ref().unwrap().id();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().unwrap();
        assert!(sent.success());
    }

    fn of_own(&self) -> &Own {
        match self {
            Self::Own(own) => own,
            Self::There(_) => panic!("the server belongs to another"),
        }
    }

    fn own_mut(&mut self) -> &mut Own {
        match self {
            Self::Own(own) => own,
            Self::There(_) => panic!("the server belongs to another"),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already, or the test is failing; either way nothing more can be done.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
