//! Compiles the wire interface, with no tool but cargo: protox reads the proto, tonic writes the Rust.
//!
//! The library alone (`--no-default-features`) has no wire, so this does nothing there.

#[cfg(not(feature = "daemon"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}

#[cfg(feature = "daemon")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto/raft.proto");
    let directory = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file("raft.proto")?;
    // What reflection serves, so that grpcurl works without a copy of the proto.
    std::fs::write(directory.join("raft.bin"), compiler.encode_file_descriptor_set())?;
    // Of a message that is here, the parts are no copies.
    let answers = "raft.ForwardResponse.responses";
    tonic_prost_build::configure().bytes(answers).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
