//! Apache Cassandra, from its jars alone: the packages of its makers bring configuration and scripts, Maven does not.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use testkit::child::Life;

use crate::engine::{self, Engine, Plan};
use crate::gossip::Peer;
use crate::greeting::Greeting;
use crate::loopback::Block;
use crate::{fetch, missing};

/// Starts nodes one after the other, since Cassandra lets only one join at a time; the first is the seed. Clients are told
/// these addresses.
pub(crate) fn start(
    announced: &[SocketAddr],
    block: Block,
    folder: &Path,
    life: Life,
) -> Result<Vec<Engine>> {
    let peer = |number: usize| Peer {
        address: block.cql(number),
        log: engine::log(&folder.join(name(number)), Greeting::Cql),
    };
    let nodes = announced.len();
    (1..=nodes)
        .map(|number| {
            let mut plan = plan(number, announced[number - 1], block, folder, life)?;
            plan.peers = (1..=nodes).filter(|other| *other != number).map(peer).collect();
            Engine::begin(plan)
        })
        .collect()
}

fn name(number: usize) -> String {
    format!("cassandra-{number}")
}

fn plan(number: usize, announced: SocketAddr, block: Block, folder: &Path, life: Life) -> Result<Plan> {
    let jars = fetch::cassandra()?;
    let program = missing::java().context("Cassandra needs a JDK 17")?;
    let folder = folder.join(name(number));
    fs::create_dir_all(&folder)?;
    let address = block.cql(number);
    let configuration = configuration(address, announced, block.cql(1), &folder.join("data"));
    fs::write(folder.join("cassandra.yaml"), configuration)?;
    fs::write(folder.join("logback.xml"), include_str!("../cassandra/logback.xml"))?;
    Ok(Plan {
        name: name(number),
        address,
        arguments: arguments(&folder, &jars),
        folder,
        life,
        program,
        environment: Vec::new(),
        greeting: Greeting::Cql,
        peers: Vec::new(),
    })
}

fn configuration(address: SocketAddr, announced: SocketAddr, seed: SocketAddr, data: &Path) -> String {
    let template = include_str!("../cassandra/cassandra.yaml");
    // The first line speaks of the places to fill in.
    let template = template.split_once('\n').expect("it has lines").1;
    template
        .replace("ANNOUNCED", &announced.ip().to_string())
        .replace("ADDRESS", &address.ip().to_string())
        .replace("SEED", &seed.ip().to_string())
        .replace("DATA", &data.display().to_string())
}

/// What Cassandra's own scripts give to the JVM, as far as a small node needs it. No port of JMX is opened.
fn arguments(folder: &Path, jars: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = JVM.split_whitespace().map(OsString::from).collect();
    for package in OPENED.split_whitespace() {
        for flag in ["--add-opens", "--add-exports"] {
            arguments.extend([flag.into(), format!("{package}=ALL-UNNAMED").into()]);
        }
    }
    let folder = folder.display();
    arguments.extend(
        [
            format!("-Djava.io.tmpdir={folder}"),
            format!("-Dcassandra.config=file://{folder}/cassandra.yaml"),
            format!("-Dlogback.configurationFile={folder}/logback.xml"),
            format!("-Dcassandra.logdir={folder}"),
            format!("-Dcassandra.storagedir={folder}/data"),
            "-cp".to_owned(),
            format!("{}/*", jars.display()),
            "org.apache.cassandra.service.CassandraDaemon".to_owned(),
        ]
        .map(OsString::from),
    );
    arguments
}

/// Small, with the collector that needs no threads. A ring of one machine settles at once, so joining waits for
/// little; but for the answer of a seed no longer either, and with less than this a busy one is too late.
const JVM: &str = "
    -Xms512m -Xmx512m -Xss512k -XX:+UseSerialGC -XX:+AlwaysPreTouch
    -Djdk.attach.allowAttachSelf=true
    -Dio.netty.tryReflectionSetAccessible=true
    -Dio.netty.transport.noNative=true
    -Dcassandra.libjemalloc=-
    -Dcassandra-foreground=yes
    -Dcassandra.skip_wait_for_gossip_to_settle=0
    -Dcassandra.ring_delay_ms=4000
    -Dcassandra.superuser_setup_delay_ms=0
";

/// Packages of the JDK that Cassandra reaches into, which JDK 17 allows only where it is told to.
const OPENED: &str = "
    java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.ref
    java.base/java.lang.reflect java.base/java.math java.base/java.net java.base/java.nio
    java.base/java.nio.charset java.base/java.nio.file.spi java.base/java.util java.base/java.util.concurrent
    java.base/java.util.concurrent.atomic java.base/java.util.concurrent.locks java.base/jdk.internal.loader
    java.base/jdk.internal.math java.base/jdk.internal.misc java.base/jdk.internal.module
    java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util
    java.base/jdk.internal.util.jar java.base/sun.nio.ch java.management/com.sun.jmx.remote.security
    java.management.rmi/javax.management.remote.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server
    java.rmi/sun.rmi.transport java.rmi/sun.rmi.transport.tcp java.sql/java.sql java.logging/java.util.logging
    jdk.management/com.sun.management.internal jdk.management.agent/jdk.internal.agent
    jdk.management.jfr/jdk.management.jfr jdk.attach/sun.tools.attach jdk.compiler/com.sun.tools.javac.file
";
