;; A component that wants the network.
(component
  (import "wasi:sockets/network@0.2.0" (instance)))
