;; The least that a proxy-wasm host takes for a filter (ABI 0.2.1), and one call into it for every request.
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  ;; Every allocation returns the same address, so that new data overwrites the previous data.
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  ;; Action::Continue
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))
