//! What can be pushed, and what cannot.

use super::*;

async fn refusal(wasm: Vec<u8>) -> String {
    match host().inspect(wasm.into()).await {
        Err(TransformError::Invalid(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn core_module_becomes_a_component_that_describes_itself() {
    let host = host();
    for (module, interface) in [(guests::keep_all(), "batch"), (guests::records(), "records")] {
        let inspected = host.inspect(module.into()).await.unwrap();
        assert_eq!((inspected.name.as_str(), inspected.version.as_str()), ("test-guest", "1.2.3"));
        assert_eq!(inspected.hooks, [Hook::Produce, Hook::View]);
        assert_eq!((inspected.interface.as_str(), inspected.config_schema.as_str()), (interface, ""));
        let again = host.inspect(inspected.component.clone()).await.unwrap();
        assert_eq!(again.component, inspected.component, "a component is taken as it is");
    }
}

#[tokio::test]
async fn imports_beyond_the_contract_are_refused_by_name() {
    let wasi = r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))"#;
    assert!(
        refusal(wat::parse_str(wasi).unwrap())
            .await
            .contains("wasi:clocks/monotonic-clock@0.2.0")
    );
    let core = guests::embed(
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#,
        "batch-plugin",
    );
    assert!(refusal(core).await.contains("wasi_snapshot_preview1"));
    let unknown = r#"(component (import "millstream:plugin/host@1.0.0" (instance (export "launch" (func)))))"#;
    assert!(refusal(wat::parse_str(unknown).unwrap()).await.contains("export"));
}

#[tokio::test]
async fn files_that_are_no_plugins_are_refused() {
    assert!(refusal(b"hello".to_vec()).await.contains("no WebAssembly"));
    assert!(
        refusal(b"(component)".to_vec()).await.contains("no WebAssembly"),
        "text is no file format"
    );
    assert!(refusal(Vec::new()).await.contains("no WebAssembly"));
    assert!(refusal(wat::parse_str("(component)").unwrap()).await.contains("exports neither"));
    assert!(!refusal(wat::parse_str("(module)").unwrap()).await.is_empty());
    let mut cut = guests::keep_all();
    cut.truncate(cut.len() / 2);
    assert!(!refusal(cut).await.is_empty());
}

#[tokio::test]
async fn module_beyond_the_size_limit_is_refused_unread() {
    let host = host_with(HostOptions {
        component_bytes_max: 1000,
        ..HostOptions::default()
    });
    let refused = host.inspect(vec![0; 1001].into()).await;
    assert!(
        matches!(&refused, Err(TransformError::Invalid(reason)) if reason.contains("1001 bytes")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn memories_and_tables_beyond_the_maximum_are_refused() {
    let with_memories = |memories: &str| {
        let text = format!("(component (core module $m {memories}) (core instance (instantiate $m)))");
        wat::parse_str(text).unwrap()
    };
    // 512 MiB and a page.
    assert!(
        refusal(with_memories("(memory 8193)"))
            .await
            .contains("exceeds the limit of 0x20000000 bytes")
    );
    assert!(refusal(with_memories("(table 65537 funcref)")).await.contains("table"));
    assert!(refusal(with_memories("(memory 1) (memory 1)")).await.contains("multiple memories"));
    assert!(refusal(with_memories("(memory i64 1)")).await.contains("memory64"));
}

#[tokio::test]
async fn start_function_that_loops_is_stopped() {
    let start = "(func $start (loop $forever (br $forever))) (start $start)";
    assert!(refusal(guests::module("batch", start, "unreachable")).await.contains("timeout"));
}

#[tokio::test]
async fn descriptions_are_checked() {
    // The description's strings lie at 16 (name), 32 (version) and 48 (hooks); a later data segment overwrites them.
    for (data, expected) in [
        ("(data (i32.const 16) \"Bad Name!!\")", "name"),
        ("(data (i32.const 32) \"1.2.x\")", "version"),
        ("(data (i32.const 48) \"\\02\\02\")", "hook"),
        ("(data (i32.const 48) \"\\07\\07\")", "describe"),
        ("(data (i32.const 88) \"\\c8\\00\\00\\00\\07\\00\\00\\00\")", "schema"),
        ("(data (i32.const 64) \"\\ff\\ff\\ff\\ff\")", "describe"),
    ] {
        let reason = refusal(guests::module("batch", data, "unreachable")).await;
        assert!(reason.contains(expected), "{data}: {reason}");
    }
}
