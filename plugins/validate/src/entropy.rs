//! The random numbers of a sandbox that has none.
//!
//! jsonschema's hash tables (ahash) ask `getrandom` for their seed, and getrandom's own answer for `wasm32-unknown-unknown` is to
//! import a JavaScript host, which no broker offers. So getrandom is built with its custom backend (`plugins/guest.toml`) and
//! ends here, at fixed bytes. The price: who knows the seed can craft keys that collide in a hash table; the damage is bounded
//! by the record size and by the broker's deadline for a batch. Nothing secret is ever made from these bytes.
#![allow(unsafe_code)]

// Without the flag the module would link, and brokers would refuse its imports.
#[allow(unexpected_cfgs)]
const _: () = assert!(cfg!(getrandom_backend = "custom"), "build guests with --config plugins/guest.toml");

/// What getrandom's custom backend calls; the name and the signature are its contract.
///
/// # Safety
/// `dest` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    // SAFETY: getrandom passes the start and the length of the buffer it wants filled.
    unsafe { dest.write_bytes(0xa7, len) };
    Ok(())
}
