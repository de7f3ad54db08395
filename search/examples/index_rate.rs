//! How fast mail goes into the index, how large that is, and how fast it answers.
//!
//! `cargo run --release -p search --example index_rate -- 20000`

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, reason = "an example, with helpers of tests")]

use std::time::Instant;

use search::{Ids, Needle, Place, Texts, Wanted};

#[path = "../tests/suite/setup.rs"]
mod setup;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(5_000);
    let mut place = setup::Installation::new().await;
    place.config.commit_seconds = 5;
    let account = place.account(1).await;
    let mut random = setup::Random::new(1);
    let mut bytes = 0;
    for number in 0..count {
        let message = setup::message(&mut random, number);
        bytes += message.len();
        setup::append(&account, &message).await;
    }
    println!("{count} emails of {} octets on average", bytes / count);
    let search = place.search().await;
    let began = Instant::now();
    setup::follow(&search, &account).await;
    let took = began.elapsed().as_secs_f64();
    let size = search.bytes().await;
    println!(
        "indexed in {took:.1} s: {:.0} emails/s; {} octets of index per email",
        count as f64 / took,
        size / count as u64
    );

    for text in ["eautiful worl", "report", "会議", "meeting agenda", "no such thing"] {
        for place in [Place::Anywhere, Place::Field("Subject".to_owned())] {
            let needle = Needle { place, text: text.to_owned() };
            let began = Instant::now();
            let candidates = search.candidates(account.id(), std::slice::from_ref(&needle)).await;
            let took = began.elapsed();
            let found = match candidates.ids {
                Ids::All => "all".to_owned(),
                Ids::These(ids) => ids.len().to_string(),
            };
            println!("{:?} {text:?}: {found} candidates in {took:?}", needle.place);
        }
        let began = Instant::now();
        let found = search.find(&account, &Wanted::read(Texts::Any, text)).await.unwrap();
        println!("words {text:?}: {} hits in {:?}", found.hits.len(), began.elapsed());
    }
}
