//! The contract of engines, on the nodes that `POSTRIDER_CQL` names (`cargo xtask engines up`).

use bytes::Bytes;
use engine::{LogId, PageId, Row, Table, contract};
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

/// One that was down when a page was written has not got it, and may be the one that is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_a_page_that_one_of_three_nodes_has_not_got() {
    let Some(config) = config() else { return };
    if config.nodes.len() < 3 {
        eprintln!("left out: POSTRIDER_CQL names fewer than three nodes");
        return;
    }
    // Two copies are made of each; then three are wanted, and nobody makes the third.
    let config = Config { replication: 2, ..config };
    let cql = Cql::open(&config).await.expect("the nodes are there");
    let log = LogId::account(Uuid::new_v4());
    let pages: Vec<Row> = (0..60)
        .map(|number| {
            let page = PageId { base_seq: 1, attempt: Uuid::nil(), number };
            let (log, page) = (log.to_bytes().to_vec(), page.to_key().to_vec());
            Row::new(Table::Page, log, page, Bytes::from(vec![7; 100]))
        })
        .collect();
    let keys: Vec<_> = pages.iter().map(|page| page.key.clone()).collect();
    cql.engine().rows.put(pages).await.expect("they are put");
    let session = &cql.calls.session;
    let answer = session.query_unpaged("SELECT data_center FROM system.local", ()).await.expect("it answers");
    let answer = answer.into_rows_result().expect("rows");
    let (datacentre,) = answer.first_row::<(String,)>().expect("a row");
    let three = format!(
        "ALTER KEYSPACE {} WITH replication = {{'class': 'NetworkTopologyStrategy', '{datacentre}': 3}}",
        config.keyspace
    );
    session.query_unpaged(three, ()).await.expect("the keyspace is altered");
    session.await_schema_agreement().await.expect("all nodes know");
    let config = Config { replication: 3, ..config };
    let cql = Cql::open(&config).await.expect("the nodes are there");
    let found = cql.engine().rows.get_many(keys).await.expect("they can be asked");
    assert_eq!(found.iter().flatten().count(), 60);
    drop_keyspace(&cql, &config).await;
}

#[tokio::test]
async fn without_nodes_it_says_which_were_tried() {
    let config = Config { nodes: vec!["127.0.0.1:1".into()], connect_timeout_ms: 500, ..Config::default() };
    let error = Cql::open(&config).await.expect_err("nobody listens there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
