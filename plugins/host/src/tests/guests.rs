//! Guests as core modules in text form, and what makes plugins of them.
//!
//! `process` gets a pointer to its parameters: record count at 36, topic at 4, the list's pointer and length at 80 and 84. It answers
//! with a pointer to (0 = ok, list pointer, list length); the templates put that at 160 and reply bytes at 4096.

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// A plugin made of the batch interface; `process` is the body of a function with the local `$p` and the result i32.
pub(super) fn batch(process: &str) -> Vec<u8> {
    module("batch", "", process)
}

/// Answers with the bytes that were written to 4096, `$len` of them.
const ANSWER: &str = "(i32.store (i32.const 164) (i32.const 4096)) (i32.store (i32.const 168) (local.get $len)) (i32.const 160)";

/// Keeps every record.
pub(super) fn keep_all() -> Vec<u8> {
    batch(&keep_all_body())
}

fn keep_all_body() -> String {
    format!("(i32.store16 (i32.const 4096) (i32.const 1)) (local.set $len (i32.const 2)) {ANSWER}")
}

/// The per-record head, then for each record `$i` what `verdict` writes at `$at` (which it moves on).
pub(super) fn per_record(verdict: &str) -> Vec<u8> {
    batch(&format!(
        "(i32.store16 (i32.const 4096) (i32.const 0x0101))
         (i32.store (i32.const 4098) (i32.load offset=36 (local.get $p)))
         (local.set $at (i32.const 4102))
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (i32.load offset=36 (local.get $p))))
           {verdict}
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (local.set $len (i32.sub (local.get $at) (i32.const 4096)))
         {ANSWER}"
    ))
}

/// A verdict of these bytes for records with an odd index; keep for the others.
pub(super) fn odd(verdict: &[u8]) -> Vec<u8> {
    let stores: String = verdict
        .iter()
        .enumerate()
        .map(|(at, byte)| format!("(i32.store8 offset={at} (local.get $at) (i32.const {byte}))"))
        .collect();
    per_record(&format!(
        "(if (i32.and (local.get $i) (i32.const 1))
           (then {stores} (local.set $at (i32.add (local.get $at) (i32.const {}))))
           (else (i32.store8 (local.get $at) (i32.const 0)) (local.set $at (i32.add (local.get $at) (i32.const 1)))))",
        verdict.len()
    ))
}

/// Does `harm` to a batch that holds the byte 7 anywhere, and keeps all others.
pub(super) fn on_marker(harm: &str) -> Vec<u8> {
    batch(&format!(
        "(local.set $at (i32.load offset=80 (local.get $p)))
         (block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (i32.load offset=84 (local.get $p))))
           (if (i32.eq (i32.load8_u (i32.add (local.get $at) (local.get $i))) (i32.const 7)) (then {harm}))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         {}",
        keep_all_body()
    ))
}

/// Answers with a list at this place, whatever is there.
pub(super) fn reply_at(pointer: u32, length: u32) -> Vec<u8> {
    batch(&format!(
        "(i32.store (i32.const 164) (i32.const {pointer})) (i32.store (i32.const 168) (i32.const {length})) (i32.const 160)"
    ))
}

/// Answers with these bytes.
pub(super) fn reply(bytes: &[u8]) -> Vec<u8> {
    let stores: String = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", 4096 + at))
        .collect();
    batch(&format!("{stores} (local.set $len (i32.const {})) {ANSWER}", bytes.len()))
}

/// Answers `Err("no good")` to everything.
pub(super) fn err() -> Vec<u8> {
    batch(
        "(i32.store8 (i32.const 160) (i32.const 1)) (i32.store (i32.const 164) (i32.const 200)) (i32.store (i32.const 168) (i32.const 7)) (i32.const 160)",
    )
}

/// The records interface: keeps, drops and replaces (value `new`, no headers) in turn. A verdict takes 36 bytes.
pub(super) fn records() -> Vec<u8> {
    module(
        "records",
        "",
        "(block $done (loop $next
           (br_if $done (i32.ge_u (local.get $i) (i32.load offset=84 (local.get $p))))
           (local.set $at (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 36))))
           (memory.fill (local.get $at) (i32.const 0) (i32.const 36))
           (i32.store8 (local.get $at) (i32.rem_u (local.get $i) (i32.const 3)))
           (if (i32.eq (i32.rem_u (local.get $i) (i32.const 3)) (i32.const 2)) (then
             (i32.store8 offset=16 (local.get $at) (i32.const 1))
             (i32.store offset=20 (local.get $at) (i32.const 208))
             (i32.store offset=24 (local.get $at) (i32.const 3))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (i32.store (i32.const 164) (i32.const 4096))
         (i32.store (i32.const 168) (i32.load offset=84 (local.get $p)))
         (i32.const 160)",
    )
}

/// A whole module of the world `{interface}-plugin`; `extra` are more fields.
pub(super) fn module(interface: &str, extra: &str, process: &str) -> Vec<u8> {
    module_with_init(interface, extra, "(i32.const 128)", process)
}

/// As [`module`], with the body of `init` (parameters `$ptr`, `$length` of the configuration).
pub(super) fn module_with_init(interface: &str, extra: &str, init: &str, process: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "millstream:plugin/host@1.0.0" "log" (func $log (param i32 i32 i32)))
          (import "millstream:plugin/host@1.0.0" "counter-add" (func $counter_add (param i32 i32 i64)))
          (memory (export "memory") 48)
          (global $heap (mut i32) (i32.const 2097152))
          (data (i32.const 16) "test-guest") (data (i32.const 32) "1.2.3") (data (i32.const 48) "\00\01")
          (data (i32.const 64) "\10\00\00\00\0a\00\00\00" "\20\00\00\00\05\00\00\00" "\30\00\00\00\02\00\00\00" "\00\00\00\00\00\00\00\00")
          (data (i32.const 200) "no good" "\00new")
          {extra}
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get 3)))
            (if (i32.gt_u (global.get $heap) (i32.const 3145728)) (then unreachable))
            (local.get $at))
          (func (export "millstream:plugin/guest@1.0.0#describe") (result i32) (i32.const 64))
          (func (export "millstream:plugin/guest@1.0.0#init") (param $ptr i32) (param $length i32) (result i32) {init})
          (func (export "millstream:plugin/{interface}@1.0.0#process") (param $p i32) (result i32)
            (local $len i32) (local $at i32) (local $i i32)
            (global.set $heap (i32.const 2097152))
            {process}))"#
    );
    embed(&text, &format!("{interface}-plugin"))
}

/// Assembles a core module and embeds the component type of one of the contract's worlds.
pub(super) fn embed(text: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_source("plugin.wit", include_str!("../../../../sdk/wit/plugin.wit"))
        .unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}
