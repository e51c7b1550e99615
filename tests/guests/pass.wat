;; Asks the pod what it was asked, skips chunks, returns the answer with its blobs, or the pod's fault as it is.
(module
  (import "hob:glue/pod@0.1.0" "start" (func $start (param i32 i32 i32 i32 i32 i32 i32)))
  (import "hob:glue/pod@0.1.0" "[method]call.next" (func $next (param i32 i32)))
  (import "hob:glue/pod@0.1.0" "[resource-drop]call" (func $drop (param i32)))
  (memory (export "memory") 8)
  (global $top (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "run") (param $op i32) (param $op_len i32) (param $in i32) (param $in_len i32) (param i32 i32 i32 i32) (result i32)
    (local $call i32)
    (call $start (local.get $op) (local.get $op_len) (local.get $in) (local.get $in_len) (i32.const 0) (i32.const 0) (i32.const 0))
    (if (i32.load8_u (i32.const 0)) (then (return (i32.const 0))))
    (local.set $call (i32.load (i32.const 4)))
    (loop $more
      (call $next (local.get $call) (i32.const 64))
      ;; A fault lies in memory just as `run` has to return it.
      (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))
      ;; The end without an answer.
      (if (i32.eqz (i32.load8_u (i32.const 68))) (then unreachable))
      ;; `chunk` has five letters, `answer` six.
      (br_if $more (i32.eq (i32.load (i32.const 76)) (i32.const 5))))
    (call $drop (local.get $call))
    (i32.store8 (i32.const 128) (i32.const 0))
    (i64.store align=4 (i32.const 132) (i64.load align=4 (i32.const 80)))
    (i64.store align=4 (i32.const 140) (i64.load align=4 (i32.const 88)))
    (i32.const 128))
)
