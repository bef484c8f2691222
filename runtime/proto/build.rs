//! Generates the protocols' Rust code with protox, so that no `protoc` has to be installed.

const FILES: [&str; 2] = ["tandem/function/v1alpha1/function.proto", "tandem/peer/v1alpha1/peer.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed=proto/{file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
