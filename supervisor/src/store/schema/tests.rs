use super::*;

const V1: &str = r#"{
  "schema": 1,
  "domain": {
    "name": "web",
    "uuid": "6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10",
    "machine": "reeve-legacy-1.0",
    "vcpus": 2,
    "cpu": {
      "tsc_deadline": true,
      "kvmclock": true,
      "invariant_tsc": true,
      "transactional_memory": false
    },
    "memory_bytes": 268435456,
    "boot": {
      "kernel": {
        "kernel": "/var/lib/reeve/images/vmlinuz",
        "command_line": "console=ttyS0"
      }
    },
    "on_power_off": "preserve",
    "on_reboot": "destroy",
    "on_crash": "destroy",
    "limits": {
      "memory_bytes": 536870912,
      "cpu_percent": 150
    }
  }
}
"#;

const V2: &str = r#"{
  "schema": 2,
  "autostart": 3,
  "domain": {
    "name": "web",
    "uuid": "6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10",
    "title": "the web",
    "description": "serves it",
    "machine": "reeve-1.0",
    "vcpus": 2,
    "cpu": {
      "tsc_deadline": true,
      "kvmclock": false,
      "invariant_tsc": true,
      "transactional_memory": false
    },
    "memory_bytes": 268435456,
    "boot": {
      "built_in": {
        "command_line": "idle"
      }
    },
    "on_power_off": "restart",
    "on_reboot": "preserve",
    "on_crash": "restart",
    "limits": {
      "vcpu_percent": 150,
      "cpu_weight": 50,
      "pids": 64
    },
    "pinning": [
      {
        "vcpu": 1,
        "host_cpus": "0-3,8"
      }
    ],
    "metadata": [
      {
        "uri": "http://example.org/app",
        "content": "<app:x/>"
      }
    ]
  }
}
"#;

const V3: &str = r#"{
  "schema": 3,
  "autostart": 3,
  "domain": {
    "name": "web",
    "uuid": "6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10",
    "title": "the web",
    "description": "serves it",
    "machine": "reeve-1.0",
    "vcpus": 2,
    "cpu": {
      "tsc_deadline": true,
      "kvmclock": false,
      "invariant_tsc": true,
      "transactional_memory": false
    },
    "memory_bytes": 268435456,
    "boot": {
      "built_in": {
        "command_line": "idle"
      }
    },
    "devices": {
      "disks": [
        {
          "target": "vda",
          "image": {
            "path": "/var/lib/reeve/images/web.qcow2",
            "format": "qcow2"
          },
          "backing": [
            {
              "path": "/var/lib/reeve/images/base",
              "format": "raw"
            }
          ],
          "read_only": false,
          "cache": "none",
          "io": "io_uring",
          "discard": "unmap",
          "serial": "W1",
          "queues": 4,
          "block_bytes": 4096,
          "bytes": {
            "total": {
              "per_second": 10000000,
              "burst": {
                "per_second": 20000000,
                "seconds": 5
              }
            }
          },
          "requests": {
            "read": {
              "per_second": 500
            },
            "write": {
              "per_second": 200
            }
          },
          "address": 1
        }
      ],
      "nics": [
        {
          "mac": "52:54:00:12:34:56",
          "source": {
            "bridge": "br0"
          },
          "target": "web0",
          "queues": 2,
          "mtu": 1400,
          "link_up": true,
          "inbound": {
            "per_second": 1000000
          },
          "trust_guest": false,
          "isolated": true,
          "address": 2,
          "addresses": [
            "192.0.2.5",
            "2001:db8::/64"
          ]
        },
        {
          "mac": "52:54:00:12:34:57",
          "source": "nothing",
          "queues": 1,
          "link_up": false,
          "trust_guest": true,
          "isolated": false,
          "address": 3,
          "vhost": true
        },
        {
          "mac": "52:54:00:12:34:58",
          "source": {
            "network": {
              "network": "lan"
            }
          },
          "queues": 1,
          "link_up": true,
          "trust_guest": false,
          "isolated": false,
          "address": 9,
          "virtual_port": {
            "open_vswitch": true,
            "profile": "gold",
            "vlan": {
              "trunk": true,
              "tags": [
                {
                  "id": 42,
                  "native": "untagged"
                }
              ]
            }
          }
        }
      ],
      "rng": {
        "rate": {
          "per_second": 1024
        },
        "address": 4
      },
      "balloon": {
        "free_page_reporting": true,
        "deflate_on_oom": false,
        "address": 5
      },
      "vsock": {
        "cid": 7,
        "path": "/var/lib/reeve/images/web.vsock",
        "address": 6
      },
      "channels": [
        {
          "name": "org.qemu.guest_agent.0",
          "path": "/var/lib/reeve/images/web.agent"
        }
      ],
      "consoles": [
        {
          "path": "/var/lib/reeve/images/web.hvc0"
        }
      ],
      "ports_address": 7,
      "shares": [
        {
          "tag": "data",
          "source": "/var/lib/reeve/images/data",
          "read_only": true,
          "address": 8
        },
        {
          "tag": "more",
          "source": "/var/lib/reeve/images/more"
        }
      ]
    },
    "on_power_off": "restart",
    "on_reboot": "preserve",
    "on_crash": "restart",
    "limits": {
      "vcpu_percent": 150,
      "cpu_weight": 50,
      "pids": 64
    },
    "pinning": [
      {
        "vcpu": 1,
        "host_cpus": "0-3,8"
      }
    ],
    "metadata": [
      {
        "uri": "http://example.org/app",
        "content": "<app:x/>"
      }
    ]
  }
}
"#;

#[test]
fn limits_of_memory_are_kept_one_by_one() {
    use reeve_ipc::model::MemorySize;

    let mut record = decode(V3.as_bytes()).unwrap();
    let limits = &mut record.domain.limits;
    limits.memory = Some(MemorySize::mebibytes(4096));
    limits.memory_soft = Some(MemorySize::mebibytes(3072));
    limits.memory_and_swap = Some(MemorySize::mebibytes(5120));
    let text = encode(&record).unwrap();
    assert_eq!(decode(&text).unwrap(), record);
    // One of swap with none of memory is no definition.
    let text = String::from_utf8(text).unwrap();
    let text = text.replace("\"memory_bytes\": 4294967296,", "");
    assert!(decode(text.as_bytes()).is_err());
}

#[test]
fn every_version_still_loads_and_is_written_as_the_newest() {
    for text in [V1, V2] {
        let record = decode(text.as_bytes()).unwrap();
        assert!(record.domain.devices.is_empty());
        let text = encode(&record).unwrap();
        assert_eq!(schema_of(&text).unwrap(), CURRENT);
        assert_eq!(decode(&text).unwrap(), record);
    }
    // The devices aside, nothing is added or lost.
    let text = String::from_utf8(encode(&decode(V2.as_bytes()).unwrap()).unwrap()).unwrap();
    assert_eq!(text.replace("\"schema\": 3", "\"schema\": 2"), V2);
}

#[test]
fn what_the_first_version_lacks_is_not_made_up() {
    let record = decode(V1.as_bytes()).unwrap();
    assert_eq!(record.autostart, None);
    assert_eq!(record.domain.name.as_str(), "web");
    assert_eq!(record.domain.limits.cpu_percent, Some(150));
    assert_eq!(record.domain.limits.cpu_weight, None);
    assert!(record.domain.pinning.is_empty());
    let text = encode(&record).unwrap();
    assert_eq!(schema_of(&text).unwrap(), CURRENT);
    assert_eq!(decode(&text).unwrap(), record);
}

#[test]
fn the_text_of_the_newest_version_does_not_change() {
    let record = decode(V3.as_bytes()).unwrap();
    assert_eq!(record.autostart, Some(3));
    assert_eq!(String::from_utf8(encode(&record).unwrap()).unwrap(), V3);
}

#[test]
fn memory_to_be_plugged_in_is_kept() {
    let mut record = decode(V3.as_bytes()).unwrap();
    record.domain.devices.memory = Some(reeve_ipc::model::PluggableMemory {
        max: reeve_ipc::model::MemorySize::mebibytes(512),
        address: Some(20.try_into().unwrap()),
    });
    let text = encode(&record).unwrap();
    assert_eq!(decode(&text).unwrap(), record);
    let small = String::from_utf8(text).unwrap();
    let small = small.replace("536870912", "1048576");
    assert!(decode(small.as_bytes()).is_err(), "less than at the start");
}

#[test]
fn what_a_domain_is_held_to_is_kept_and_no_record_need_say_it() {
    use reeve_ipc::model::{BlockDeviceTuning, CpuQuota, MemoryNodes, NodeMode};
    let mut record = decode(V3.as_bytes()).unwrap();
    let tuning = &mut record.domain.tuning;
    assert_eq!(
        (tuning.vcpu_quota, tuning.memory_nodes.clone()),
        (None, None)
    );
    assert!(!tuning.block.any());
    tuning.vcpu_quota = Some(CpuQuota {
        quota_us: 25_000,
        period_us: 50_000,
    });
    tuning.block.weight = Some(300);
    tuning.block.devices = vec![BlockDeviceTuning {
        path: "/dev/sda".into(),
        weight: Some(400),
        read_bytes: Some(1),
        write_bytes: Some(2),
        read_operations: Some(3),
        write_operations: Some(4),
    }];
    for mode in [
        NodeMode::Strict,
        NodeMode::Preferred,
        NodeMode::Interleave,
        NodeMode::Restrictive,
    ] {
        let nodes = "1".parse().unwrap();
        record.domain.tuning.memory_nodes = Some(MemoryNodes { mode, nodes });
        assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
    }
    let text = String::from_utf8(encode(&record).unwrap()).unwrap();
    let outside = text.replace("/dev/sda", "/etc/passwd");
    assert!(decode(outside.as_bytes()).is_err());
}

#[test]
fn what_says_nothing_to_this_host_is_kept() {
    let mut record = decode(V3.as_bytes()).unwrap();
    assert!(record.domain.kept.is_empty());
    record.domain.kept = vec![reeve_ipc::model::KeptElement {
        path: "features/vmport".to_owned(),
        xml: "<vmport state='off'/>".to_owned(),
    }];
    assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
}

#[test]
fn a_newer_version_is_refused_by_its_number_whatever_else_it_says() {
    let error = decode(br#"{"schema": 4, "beyond": ["our", "ken"]}"#).unwrap_err();
    assert_eq!(error, SchemaError::Newer { found: 4 });
    assert_eq!(
        decode(br#"{"schema": 0}"#),
        Err(SchemaError::Unknown { found: 0 })
    );
}

#[test]
fn every_truncation_is_an_error_of_one_line() {
    for end in 0..V3.trim_end().len() {
        let error = decode(&V3.as_bytes()[..end]).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_field_that_would_be_lost_is_refused() {
    let text = V3.replace("\"vcpus\": 2,", "\"vcpus\": 2, \"vcpu_colour\": \"red\",");
    let error = decode(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("vcpu_colour"), "{error}");
}

#[test]
fn what_no_domain_may_be_is_refused() {
    for (from, to) in [
        ("\"vcpus\": 2", "\"vcpus\": 0"),
        ("\"name\": \"web\"", "\"name\": \"a/b\""),
        ("268435456", "268435457"),
        ("0-3,8", "8-3"),
        ("\"vcpu\": 1", "\"vcpu\": 2"),
        ("\"cpu_weight\": 50", "\"cpu_weight\": 0"),
        ("\"target\": \"vda\"", "\"target\": \"sda\""),
        ("\"address\": 1", "\"address\": 32"),
        ("\"address\": 1", "\"address\": 2"),
        ("\"format\": \"raw\"", "\"format\": \"vmdk\""),
        ("\"format\": \"raw\"", "\"path\": \"/x\""),
        ("4096", "1024"),
        ("52:54:00:12:34:56", "53:54:00:12:34:56"),
        ("\"web0\"", "\"we/b0\""),
        ("\"cid\": 7", "\"cid\": 2"),
        ("\"total\"", "\"toal\""),
    ] {
        let text = V3.replace(from, to);
        assert_ne!(text, V3);
        assert!(decode(text.as_bytes()).is_err(), "{to}");
    }
}
