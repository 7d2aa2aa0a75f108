//! Conversations with companions.

mod anthropic;
mod complaints;
mod context;
mod conversations;
mod dropped;
mod edit;
mod faults;
mod filter;
mod generations;
mod instances;
mod listening;
mod openai;
mod personas;
mod quota;
mod regenerate;
mod routing;
mod send;
mod settling;
mod slow_readers;
mod stream;

/// Waits until a condition holds, looking again and again.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
