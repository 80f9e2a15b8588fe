;; A collector whose answer is its first batch's values, byte for byte. The types are the contract's.
(component
  (import "tidegate:plugin/types@0.1.0" (instance $types
    (type $column' (record (field "bytes" (list u8)) (field "lengths" (list s32))))
    (export "column" (type $column (eq $column')))
    (type $batch' (record
      (field "topic" string) (field "partition" s32) (field "offsets" (list s64)) (field "ordinals" (list u32))
      (field "timestamps" (list s64)) (field "keys" $column) (field "values" $column) (field "header-counts" (list u32))
      (field "header-names" $column) (field "header-values" $column)))
    (export "batch" (type (eq $batch')))
    (type $kind' (enum "retry" "reject"))
    (export "failure-kind" (type $kind (eq $kind')))
    (type $failure' (record (field "index" u32) (field "kind" $kind) (field "reason" string)))
    (export "failure" (type $failure (eq $failure')))
    (type $fault' (variant (case "backpressure" u64) (case "unavailable" string) (case "reject" string) (case "fatal" string)))
    (export "fault" (type (eq $fault')))
    (type $context' (record (field "name" string) (field "slot" u32) (field "slots" u32) (field "options" string)))
    (export "context" (type (eq $context')))
    (type $header' (record (field "name" string) (field "value" (option (list u8)))))
    (export "header" (type $header (eq $header')))
    (type $kafka' (record
      (field "index" u32) (field "sink" string) (field "key" (option (list u8))) (field "data" string)))
    (export "kafka-payload" (type $kafka (eq $kafka')))
    (type $postgres' (record
      (field "index" u32) (field "sink" string) (field "table" string) (field "data" string)))
    (export "postgres-payload" (type $postgres (eq $postgres')))
    (type $mongo' (record
      (field "index" u32) (field "sink" string) (field "collection" string) (field "data" string)))
    (export "mongo-payload" (type $mongo (eq $mongo')))
    (type $http' (record (field "index" u32) (field "sink" string) (field "data" string)))
    (export "http-payload" (type $http (eq $http')))
    (type $redis' (record
      (field "index" u32) (field "sink" string) (field "key" string) (field "data" string) (field "ttl" (option u32))))
    (export "redis-payload" (type $redis (eq $redis')))
    (type $file' (record
      (field "index" u32) (field "sink" string) (field "path" string) (field "data" string)))
    (export "file-payload" (type $file (eq $file')))
    (type $plugin' (record
      (field "index" u32) (field "sink" string) (field "key" (option (list u8))) (field "value" (option (list u8)))
      (field "headers" (list $header))))
    (export "plugin-payload" (type $plugin (eq $plugin')))
    (type $result' (record
      (field "kafka" (list $kafka)) (field "postgres" (list $postgres)) (field "mongo" (list $mongo))
      (field "http" (list $http)) (field "redis" (list $redis)) (field "files" (list $file))
      (field "plugin" (list $plugin)) (field "failed" (list $failure))))
    (export "collect-result" (type (eq $result')))))
  (alias export $types "batch" (type $batch))
  (alias export $types "fault" (type $fault))
  (alias export $types "context" (type $context))
  (alias export $types "collect-result" (type $collect-result))

  (core module $module
    (memory (export "memory") 8)
    ;; The answer stands at 0x100, what the host brings from 0x10000 on.
    (global $free (mut i32) (i32.const 0x10000))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "setup") (param i32 i32 i32 i32 i32 i32) (result i32)
      (i32.const 0x10))
    (func (export "collect") (param $batch i32) (result i32)
      (global.set $free (i32.const 0x10000))
      (memory.fill (i32.const 0x100) (i32.const 0) (i32.const 0xff00))
      (memory.copy (i32.const 0x100)
        (i32.load offset=52 (local.get $batch)) (i32.load offset=56 (local.get $batch)))
      (i32.const 0x100)))
  (core instance $code (instantiate $module))
  (alias core export $code "memory" (core memory $memory))
  (alias core export $code "realloc" (core func $realloc))
  (func $setup (param "context" $context) (result (result (error string)))
    (canon lift (core func $code "setup") (memory $memory) (realloc $realloc)))
  (func $collect (param "batch" $batch) (result (result $collect-result (error $fault)))
    (canon lift (core func $code "collect") (memory $memory) (realloc $realloc)))
  (instance $collector (export "setup" (func $setup)) (export "collect" (func $collect)))
  (export "tidegate:plugin/collector@0.1.0" (instance $collector)))
