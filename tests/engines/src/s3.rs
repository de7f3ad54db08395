//! S3: versitygw over a folder, in which each bucket is a folder.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use testkit::child::Life;

use crate::engine::{Engine, Plan};
use crate::fetch;
use crate::greeting::Greeting;
use crate::loopback::Block;

/// The region that requests are signed for.
pub const REGION: &str = "us-east-1";
/// The bucket that is there from the start.
pub const BUCKET: &str = "postrider";
/// Of the one user, who may do everything.
pub const ACCESS_KEY: &str = "postrider-test";
/// Its secret; known to everybody, like the server on loopback that asks for it.
pub const SECRET_KEY: &str = "postrider-test-secret";

/// A server that speaks S3, with path-style addresses.
#[derive(Debug)]
pub struct S3 {
    /// Its process.
    pub engine: Engine,
}

impl S3 {
    pub(crate) fn start(block: Block, folder: &Path, life: Life) -> Result<Self> {
        let folder = folder.join("s3");
        let (objects, attributes) = (folder.join("data/objects"), folder.join("data/attributes"));
        fs::create_dir_all(&objects)?;
        fs::create_dir_all(&attributes)?;
        let address = block.s3();
        // Attributes of objects lie in files of their own, since not every file system has room for them.
        let arguments: [OsString; 6] = [
            "--port".into(),
            address.to_string().into(),
            "posix".into(),
            "--sidecar".into(),
            attributes.into(),
            objects.into(),
        ];
        let engine = Engine::begin(Plan {
            name: "s3".to_owned(),
            address,
            folder,
            life,
            program: fetch::versitygw()?,
            arguments: arguments.into(),
            environment: vec![("ROOT_ACCESS_KEY", ACCESS_KEY), ("ROOT_SECRET_KEY", SECRET_KEY)],
            greeting: Greeting::Http,
            peers: Vec::new(),
        })?;
        let s3 = Self { engine };
        s3.create_bucket(BUCKET)?;
        Ok(s3)
    }

    /// The URL below which buckets lie, without a slash at its end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.engine.address())
    }

    /// Makes a bucket; nothing happens where it is there. An error if S3 allows no such name.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if !(3..=63).contains(&name.len()) || !name.bytes().all(allowed) || name.starts_with(['-', '.']) {
            bail!("«{name}» cannot be the name of a bucket");
        }
        let folder = self.engine.plan.data().join("objects").join(name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())
    }
}
