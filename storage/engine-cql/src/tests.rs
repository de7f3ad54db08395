//! The contract of engines, on the nodes that `POSTRIDER_CQL` names (`cargo xtask engines up`).

use engine::contract;
use uuid::Uuid;

use crate::config::Config;
use crate::schema::SCHEMA_VERSION;
use crate::session::Cql;

/// A keyspace of its own on the nodes that were started for tests. `None`: there are none, and the test says so.
fn config() -> Option<Config> {
    let Ok(nodes) = std::env::var("POSTRIDER_CQL") else {
        eprintln!("left out: POSTRIDER_CQL names no nodes");
        return None;
    };
    let nodes: Vec<String> = nodes.split(',').map(str::to_owned).collect();
    let replication = nodes.len().min(3);
    let keyspace = format!("test_{}", Uuid::new_v4().simple());
    Some(Config { nodes, replication, keyspace, request_timeout_ms: 20_000, ..Config::default() })
}

/// Its keyspace goes when the test ends well.
async fn drop_keyspace(cql: &Cql, config: &Config) {
    let drop = format!("DROP KEYSPACE {}", config.keyspace);
    cql.calls.session.query_unpaged(drop, ()).await.expect("the keyspace goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract_on_real_nodes() {
    let Some(config) = config() else { return };
    let cql = Cql::open(&config).await.expect("the nodes are there");
    contract::all(&cql.engine()).await;
    drop_keyspace(&cql, &config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_schema_is_made_on_real_nodes() {
    let Some(config) = config() else { return };
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { Cql::open(&config).await })
        })
        .collect();
    let mut last = None;
    for start in starts {
        last = Some(start.await.expect("no panic").expect("each of them opens it"));
    }
    let (state, _) = Cql::check(&config).await.expect("it can be looked at");
    assert_eq!((state.found, state.needed), (SCHEMA_VERSION, SCHEMA_VERSION));
    let cql = last.expect("there were some");
    contract::log(&*cql.engine().log).await;
    drop_keyspace(&cql, &config).await;
}

#[tokio::test]
async fn without_nodes_it_says_which_were_tried() {
    let config = Config { nodes: vec!["127.0.0.1:1".into()], connect_timeout_ms: 500, ..Config::default() };
    let error = Cql::open(&config).await.expect_err("nobody listens there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
