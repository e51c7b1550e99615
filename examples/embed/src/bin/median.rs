//! Measures a warm call of an embedding: `median RECIPE COUNT` prints the median in microseconds.

use std::time::Instant;

use hob::{Call, Config, Fault, Host};

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, count] = &words[..] else { panic!("wanted RECIPE COUNT") };
    let host = Host::open(Config::from_environment()?).await?;
    let call = Call::new(recipe, "embed", std::collections::BTreeMap::from([("text", "Parcels are shipped from Hamburg.")]))?;
    // The first calls start the pod and load the model.
    for _ in 0..5 {
        host.call(call.clone()).await?;
    }
    let mut times = Vec::new();
    for _ in 0..count.parse().expect("a number") {
        let begun = Instant::now();
        host.call(call.clone()).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("{}", times[times.len() / 2].as_micros());
    host.shutdown().await;
    Ok(())
}
