;; The minimum cost of a wasm filter that reads the headers of a request, removes the credential and sends an identity to
;; the upstream: it reads all headers in one call, removes one, adds three, and decides nothing.
(module
  (import "env" "proxy_get_header_map_pairs" (func $read (param i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 16) "authorization")
  (data (i32.const 32) "x-keystile-subject")
  (data (i32.const 50) "x-keystile-operator")
  (data (i32.const 69) "x-keystile-fingerprint")
  (data (i32.const 128) "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  (func (export "proxy_abi_version_0_2_1"))
  ;; Every allocation returns the same address, so that new data overwrites the previous data.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func $tell (param $name i32) (param $name_size i32) (param $size i32)
    (drop
      (call $add (i32.const 0) (local.get $name) (local.get $name_size) (i32.const 128) (local.get $size))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 4)))
    (drop (call $remove (i32.const 0) (i32.const 16) (i32.const 13)))
    (call $tell (i32.const 32) (i32.const 18) (i32.const 12))
    (call $tell (i32.const 50) (i32.const 19) (i32.const 12))
    (call $tell (i32.const 69) (i32.const 22) (i32.const 64))
    ;; Action::Continue
    (i32.const 0)))
