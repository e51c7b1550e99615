;; Returns its input with 17 blobs.
(module
  (import "hob:glue/blobs@0.1.0" "[constructor]builder" (func $new (param i32 i32) (result i32)))
  (import "hob:glue/blobs@0.1.0" "[static]builder.finish" (func $finish (param i32) (result i32)))
  (memory (export "memory") 8)
  (global $top (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "run") (param $op i32) (param $op_len i32) (param $in i32) (param $in_len i32) (param i32 i32 i32 i32) (result i32)
    (local $index i32)
    (loop $more
      ;; A name (empty) and a handle, 12 bytes each.
      (i32.store
        (i32.add (i32.const 1032) (i32.mul (local.get $index) (i32.const 12)))
        (call $finish (call $new (i32.const 256) (i32.const 0))))
      (br_if $more (i32.lt_u (local.tee $index (i32.add (local.get $index) (i32.const 1))) (i32.const 17))))
    (i32.store (i32.const 4) (local.get $in))
    (i32.store (i32.const 8) (local.get $in_len))
    (i32.store (i32.const 12) (i32.const 1024))
    (i32.store (i32.const 16) (i32.const 17))
    (i32.const 0))
)
