;; Writes just below address zero, as a Rust or C guest does whose stack ran out.
(module
  (memory (export "memory") 8)
  (global $top (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "run") (param $op i32) (param $op_len i32) (param $in i32) (param $in_len i32) (param i32 i32 i32 i32) (result i32)
    (i64.store (i32.const -64) (i64.const 1))
    unreachable)
)
