//! Conversations with companions.

mod context;
mod conversations;
mod generations;
mod openai;
mod quota;
mod send;
mod stream;
