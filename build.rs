//! Compiles `proto/` with protox, so that a fresh machine needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/folkmoot/v1/folkmoot.proto",
        "proto/folkmoot/v1/accounts.proto",
        "proto/folkmoot/v1/admin.proto",
        "proto/folkmoot/internal/v1/log.proto",
        "proto/folkmoot/internal/v1/peer.proto",
        "proto/folkmoot/internal/v1/route.proto",
        "proto/folkmoot/internal/v1/forward.proto",
        "proto/folkmoot/internal/v1/rows.proto",
        "proto/folkmoot/internal/v1/verify.proto",
        "proto/folkmoot/internal/v1/presence.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("folkmoot.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").build_transport(true).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    // The web page is embedded by a macro, which cargo does not tell of files that are new.
    println!("cargo:rerun-if-changed=web/page");
    println!("cargo:rerun-if-changed=web/client");
    Ok(())
}
