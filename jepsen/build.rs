//! Compiles the public API with protox: the harness speaks it as any stranger's client would, and
//! shares no code with the server.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["../proto/folkmoot/v1/folkmoot.proto", "../proto/folkmoot/v1/admin.proto"];
    let descriptors = protox::compile(files, ["../proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=../proto/folkmoot/v1");
    Ok(())
}
