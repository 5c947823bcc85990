//! `keystile-bindgen MODULE FOLDER`: writes the glue of a WebAssembly module for JavaScript into a folder.
//!
//! The glue does not load the module: the package does, in the way of each runtime. `__wbg_reset_state` replaces the
//! instance after a trap.

use anyhow::bail;
use wasm_bindgen_cli_support::{Bindgen, EncodeInto};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [module, folder] = &arguments[..] else { bail!("usage: keystile-bindgen MODULE FOLDER") };
    Bindgen::new()
        .input_path(module)
        .out_name("core")
        .web(true)?
        .typescript(true)
        // Faster for heads of requests than a loop in JavaScript.
        .encode_into(EncodeInto::Always)
        .omit_default_module_path(true)
        .reset_state_function(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(folder)
}
