//! Other installations that serve the same domains.

use std::path::PathBuf;

use anyhow::{Context, bail};
use mail::region::Region;
use region::Neighbour;
use serde::{Deserialize, Serialize};

/// Regions: several installations that serve the same domains, each with accounts, stores and keys of its own. A client
/// may connect to a node of any of them. All regions have the same secret and reach the same table of who is where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RegionsConfig {
    /// The name of this region, the same on all its nodes and for ever: lower-case letters, digits and hyphens. Empty:
    /// there are no others.
    pub(crate) name: String,
    /// The file with the secret that all nodes of all regions have: 64 hexadecimal digits, mode 0600 or 0400.
    pub(crate) secret_file: PathBuf,
    /// The keyspace of the table that says which region has a name. It is made when it is not there. Reached with the
    /// login and all other settings of `cql`.
    pub(crate) keyspace: String,
    /// Nodes of Cassandra that have this keyspace, as `host:port`, where they are not those of `cql`.
    pub(crate) nodes: Vec<String>,
    /// The datacentre that this keyspace lies in, as in `cql`.
    pub(crate) datacentre: String,
    /// The other regions, each as `[[regions.others]]` with its `name`, `nodes` (`host:port` of their listeners of kind `region`),
    /// `server_name` (which the certificates of those are for) and `ca_file` (what has signed them).
    pub(crate) others: Vec<Neighbour>,
}

impl Default for RegionsConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            secret_file: PathBuf::new(),
            keyspace: "postrider_regions".to_owned(),
            nodes: Vec::new(),
            datacentre: String::new(),
            others: Vec::new(),
        }
    }
}

impl RegionsConfig {
    /// The name of this region, where there are regions.
    pub(crate) fn here(&self) -> anyhow::Result<Option<Region>> {
        match self.name.as_str() {
            "" => Ok(None),
            name => Ok(Some(name.parse().context("regions.name")?)),
        }
    }

    /// How the table of who is where is reached.
    pub(crate) fn table(&self, own: &engine_cql::Config) -> engine_cql::Config {
        let mut table = engine_cql::Config { keyspace: self.keyspace.clone(), ..own.clone() };
        if !self.nodes.is_empty() {
            table.nodes.clone_from(&self.nodes);
            table.datacentre.clone_from(&self.datacentre);
        }
        table
    }

    pub(crate) fn check(&self, own: &engine_cql::Config) -> anyhow::Result<()> {
        let Some(here) = self.here()? else {
            if !self.others.is_empty() {
                bail!("regions.name: the other regions have to know this one by a name");
            }
            return Ok(());
        };
        if own.nodes.is_empty() {
            bail!(
                "regions: the table of who is where is in Cassandra, so this region has to be too: set cql.nodes"
            );
        }
        let table = self.table(own);
        table.check().map_err(|wrong| anyhow::anyhow!("regions: {wrong}"))?;
        if table.keyspace == own.keyspace {
            bail!("regions.keyspace: {} is this region's own keyspace", own.keyspace);
        }
        if self.secret_file.as_os_str().is_empty() {
            bail!("regions.secret_file: needed, the same in all regions");
        }
        for (nth, other) in self.others.iter().enumerate() {
            if other.name == here || self.others[..nth].iter().any(|before| before.name == other.name) {
                bail!("regions.others: {} is named twice", other.name);
            }
            if other.nodes.is_empty() {
                bail!("regions.others: {} has no nodes", other.name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused() {
        #[track_caller]
        fn check(text: &str, wrong: Option<&str>) {
            let config: RegionsConfig = toml::from_str(text).expect("TOML");
            let own = engine_cql::Config { nodes: vec!["127.0.0.1:9042".to_owned()], ..Default::default() };
            let found = config.check(&own).err().map(|error| error.to_string());
            match (&found, wrong) {
                (None, None) => {}
                (Some(found), Some(wrong)) if found.starts_with(wrong) => {}
                _ => panic!("{found:?} and not {wrong:?}"),
            }
        }
        let other = |name: &str| {
            format!(
                "\n[[others]]\nname = \"{name}\"\nnodes = [\"a:1\"]\nserver_name = \"a\"\nca_file = \"ca\""
            )
        };
        let us = "name = \"us\"\nsecret_file = \"secret\"";
        check("", None);
        check(us, None);
        check(&format!("{us}{}", other("eu")), None);
        check("name = \"us\"", Some("regions.secret_file"));
        check("name = \"US\"\nsecret_file = \"secret\"", Some("regions.name"));
        check(&format!("{us}\nkeyspace = \"postrider\""), Some("regions.keyspace"));
        check(&format!("{us}{}", other("us")), Some("regions.others: us is named twice"));
        check(&format!("{us}{}{}", other("eu"), other("eu")), Some("regions.others: eu is named twice"));
        check(&other("eu"), Some("regions.name"));
        let alone = RegionsConfig { name: "us".to_owned(), ..RegionsConfig::default() };
        assert!(alone.check(&engine_cql::Config::default()).is_err(), "without Cassandra");
    }
}
