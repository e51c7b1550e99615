//! Ranks sentences by their meaning, with a recipe that is installed (`hob add hob/sentence-embeddings`).

use hob::{Call, Config, Fault, Host};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Texts<'a> {
    texts: &'a [&'a str],
    similarity_to: &'a str,
}

#[derive(Deserialize)]
struct Ranked {
    similarities: Vec<f32>,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let host = Host::open(Config::from_environment()?).await?;
    let texts = ["Refunds are paid within five days.", "The cat slept all afternoon.", "You can cancel an order."];
    let call = Call::new("hob/sentence-embeddings", "embed", Texts { texts: &texts, similarity_to: "How do I get my money back?" })?;
    let ranked: Ranked = host.call_typed(call).await?;
    for (text, similarity) in texts.iter().zip(ranked.similarities) {
        println!("{similarity:.2}  {text}");
    }
    host.shutdown().await;
    Ok(())
}
