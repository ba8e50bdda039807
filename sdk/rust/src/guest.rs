//! The component's exports, in wasm only: the WIT world's types on one side, [`Plugin`] on the other.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::plugin::{self, Instance};
use crate::{Context, Hook, Plugin};

/// Generated from `sdk/wit/plugin.wit`.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/plugin.wit",
        world: "batch-plugin",
        pub_export_macro: true,
        generate_all,
    });
}

use bindings::exports::millstream::plugin::{batch, guest};
use bindings::millstream::plugin::types;

thread_local! {
    /// The plugin of this instance, made by `init`. A guest has one thread.
    static INSTANCE: RefCell<Option<Instance>> = const { RefCell::new(None) };
}

/// Exports a plugin; named by [`plugin!`](crate::plugin!) alone.
#[derive(Debug)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Plugin> guest::Guest for Exported<P> {
    fn describe() -> types::PluginInfo {
        let info = P::info();
        types::PluginInfo {
            name: info.name.to_owned(),
            version: info.version.to_owned(),
            hooks: info.hooks.iter().copied().map(hook_to_wit).collect(),
            config_schema: info.config_schema.to_owned(),
        }
    }

    fn init(config: String) -> Result<(), String> {
        let instance = plugin::instance::<P>(&config)?;
        INSTANCE.set(Some(instance));
        Ok(())
    }
}

impl<P: Plugin> batch::Guest for Exported<P> {
    fn process(context: types::Context, records: Vec<u8>) -> Result<Vec<u8>, String> {
        let context = context_from_wit(context);
        INSTANCE.with_borrow(|instance| match instance {
            Some(process) => process(&context, &records),
            None => Err("process was called before init".to_owned()),
        })
    }
}

fn hook_to_wit(hook: Hook) -> types::Hook {
    match hook {
        Hook::Produce => types::Hook::Produce,
        Hook::View => types::Hook::View,
        Hook::Transform => types::Hook::Transform,
    }
}

fn context_from_wit(context: types::Context) -> Context {
    Context {
        hook: match context.hook {
            types::Hook::Produce => Hook::Produce,
            types::Hook::View => Hook::View,
            types::Hook::Transform => Hook::Transform,
        },
        topic: context.topic,
        partition: context.partition,
        base_offset: (context.base_offset >= 0).then_some(context.base_offset),
        base_timestamp_ms: context.base_timestamp,
        leader_epoch: (context.leader_epoch >= 0).then_some(context.leader_epoch),
        record_count: context.record_count,
        principal: context.principal,
        client_id: context.client_id,
        view: context.view,
    }
}
