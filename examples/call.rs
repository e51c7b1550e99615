//! An app that embeds Hob: opens a host, calls the echo recipe from its folder, prints the results.
//!
//! Run it with `cargo run --example call` in a checkout. If `hob/echo` is installed, its name works in place
//! of the folder. The echo has no glue: for recipes with glue, `Config::with_hob` names the `hob` program
//! that compiles it, or one is on PATH.

use hob::{Call, Config, Event, Fault, Host};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let host = Host::open(Config::from_environment()?).await?;
    let echo = host.call(Call::new("./recipes/echo", "echo", serde_json::json!({ "text": "hello" }))?).await?;
    println!("{} in {:.1} ms", echo.output.text(), echo.wall_ms);

    // Progress and chunks through a callback; `Report` reads the progress.
    let input = serde_json::json!({ "seconds": 0.6 });
    let told = |event: Event| event.report().into_iter().for_each(|report| println!("progress {report}"));
    println!("{}", host.call_with(Call::new("./recipes/echo", "sleep", input)?, told).await?.output.text());

    // Or await the events one after the other.
    let input = serde_json::json!({ "text": "ho", "count": 3 });
    let mut running = host.start(Call::new("./recipes/echo", "repeat", input)?);
    while let Some(event) = running.next().await {
        if let Event::Chunk { data, .. } = event {
            println!("chunk {data}");
        }
    }
    println!("{}", running.outcome().await?.output.text());
    host.shutdown().await;
    Ok(())
}
