//! The built binary, from outside: real processes on free ports, and nothing but what they answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod crash;
mod grpc;
mod http;
mod process;
