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

#[test]
fn the_version_before_still_loads_and_is_written_as_the_newest() {
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
    let record = decode(V2.as_bytes()).unwrap();
    assert_eq!(record.autostart, Some(3));
    assert_eq!(String::from_utf8(encode(&record).unwrap()).unwrap(), V2);
}

#[test]
fn a_newer_version_is_refused_by_its_number_whatever_else_it_says() {
    let error = decode(br#"{"schema": 3, "beyond": ["our", "ken"]}"#).unwrap_err();
    assert_eq!(error, SchemaError::Newer { found: 3 });
    assert_eq!(
        decode(br#"{"schema": 0}"#),
        Err(SchemaError::Unknown { found: 0 })
    );
}

#[test]
fn every_truncation_is_an_error_of_one_line() {
    for end in 0..V2.trim_end().len() {
        let error = decode(&V2.as_bytes()[..end]).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn a_field_that_would_be_lost_is_refused() {
    let text = V2.replace("\"vcpus\": 2,", "\"vcpus\": 2, \"vcpu_colour\": \"red\",");
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
    ] {
        let text = V2.replace(from, to);
        assert_ne!(text, V2);
        assert!(decode(text.as_bytes()).is_err(), "{to}");
    }
}
