//! Becoming somebody who may do less.
//!
//! Done at the very beginning, while the process has one thread: the system keeps identities per thread, and those
//! started later inherit them. So everything that the process writes belongs to that user from the start. Of root's
//! powers one is kept, to open ports below 1024.

use anyhow::{Context, anyhow, bail};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Becomes the configured user, if the process is root. Called before any other thread exists.
pub(crate) fn become_user(name: &str) -> anyhow::Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let (uid, gid) = find(&passwd, name).ok_or_else(|| anyhow!("user: there is no user {name:?}"))?;
    let now = rustix::process::geteuid();
    if now == uid {
        return Ok(());
    }
    if !now.is_root() {
        bail!("user: only root can become {name:?}");
    }
    set_keep_capabilities(true).context("cannot keep the right to open ports")?;
    set_thread_groups(&[gid]).context("cannot give up groups")?;
    set_thread_res_gid(gid, gid, gid).with_context(|| format!("cannot take the group of {name}"))?;
    set_thread_res_uid(uid, uid, uid).with_context(|| format!("cannot become {name}"))?;
    let ports = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets { effective: ports, permitted: ports, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("cannot give up the rights of root")
}

/// User and group of a name in the format of passwd(5).
fn find(passwd: &str, name: &str) -> Option<(Uid, Gid)> {
    let mut fields = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(fields)
    })?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((Uid::from_raw(uid), Gid::from_raw(gid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\npostrider:x:998:997::/var/lib/postrider:/usr/sbin/nologin\n";
        let found = find(passwd, "postrider").map(|(uid, gid)| (uid.as_raw(), gid.as_raw()));
        assert_eq!(found, Some((998, 997)));
        assert!(find(passwd, "post").is_none());
        assert!(find("x:y", "x").is_none());
    }
}
