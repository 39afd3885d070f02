//! The manifests for Kubernetes, held to its schemas (tests/deploy, written by scripts/manifests), to the "restricted" level
//! of its Pod Security Standards, and to the program.

use super::{read, shipped};
use crate::support::schema::{check_schema, fits_schema};
use crate::support::{Dir, Serve, Talk, by_shell, ended, program, unique};
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

const SCHEMA: &str = include_str!("../../deploy/kubernetes.schema.json");
const KUSTOMIZATION: &str = include_str!("../../deploy/kustomization.schema.json");
const FOLDERS: [&str; 2] = ["base", "load"];

// --- Reading -----------------------------------------------------------------------------------------------------------

fn to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Integer(number) => json!(number),
        Yaml::String(text) => json!(text),
        Yaml::Boolean(word) => json!(word),
        Yaml::Null => Value::Null,
        Yaml::Array(items) => items.iter().map(to_json).collect(),
        Yaml::Hash(fields) => {
            let field =
                |(key, value): (&Yaml, &Yaml)| (key.as_str().unwrap().to_owned(), to_json(value));
            Value::Object(fields.iter().map(field).collect())
        }
        other => panic!("{other:?} has no meaning in a manifest"),
    }
}

/// A file with one document, in which no key comes twice.
fn manifest(folder: &str, name: &str) -> Value {
    let path = shipped("kubernetes").join(folder).join(name);
    let documents = YamlLoader::load_from_str(&read(&path)).unwrap();
    assert_eq!(documents.len(), 1, "{}", path.display());
    to_json(&documents[0])
}

/// The objects of a folder: those, and no others, that its kustomization names.
fn objects(folder: &str) -> Vec<Value> {
    const FILE: &str = "kustomization.yaml";
    let kustomization = manifest(folder, FILE);
    fits_schema(&kustomization, KUSTOMIZATION);
    let resources = kustomization["resources"].as_array().unwrap();
    let named: BTreeSet<&str> = resources
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let entries = fs::read_dir(shipped("kubernetes").join(folder)).unwrap();
    let files: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != FILE)
        .collect();
    assert_eq!(named, files.iter().map(String::as_str).collect());
    named
        .into_iter()
        .map(|name| manifest(folder, name))
        .collect()
}

fn object(kind: &str) -> Value {
    let all = FOLDERS.into_iter().flat_map(objects);
    let mut of_kind = all.filter(|object| object["kind"] == kind);
    let found = of_kind.next().unwrap();
    assert!(of_kind.next().is_none(), "there is one {kind}");
    found
}

fn pod(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]
}

/// The one container of a pod.
fn container(object: &Value) -> &Value {
    let containers = pod(object)["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    &containers[0]
}

fn arguments(object: &Value) -> Vec<String> {
    let arguments = container(object)["args"].as_array().unwrap();
    arguments
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

// --- The schemas -------------------------------------------------------------------------------------------------------

#[test]
fn every_manifest_fits_the_schema_of_its_kind() {
    let mut kinds = BTreeSet::new();
    for object in FOLDERS.into_iter().flat_map(objects) {
        fits_schema(&object, SCHEMA);
        kinds.insert(object["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        kinds,
        ["Deployment", "Job", "Service"].map(str::to_owned).into()
    );
}

/// The schema is strict: what Kubernetes would ignore, as a word that is spelt wrongly, is refused.
#[test]
fn a_slip_in_a_manifest_is_noticed() {
    let right = object("Deployment");
    const CONTAINER: &str = "/spec/template/spec/containers/0";
    for (place, key, new) in [
        (
            "",
            "apiVersion",
            Some(("apiVersion", json!("apps/v1beta1"))),
        ),
        ("", "kind", Some(("kind", json!("Deploymnt")))),
        ("", "spec", None),
        ("/spec", "replicas", Some(("replicas", json!("three")))),
        ("/spec", "selector", None),
        (
            "/spec/strategy/rollingUpdate",
            "maxSurge",
            Some(("maxsurge", json!(1))),
        ),
        (
            "/spec/template/spec",
            "containers",
            Some(("containers", Value::Null)),
        ),
        (
            "/spec/template/spec/securityContext",
            "runAsNonRoot",
            Some(("runAsNonRot", json!(true))),
        ),
        (CONTAINER, "name", None),
        (CONTAINER, "args", Some(("args", json!("serve")))),
        (
            CONTAINER,
            "readinessProbe",
            Some(("readinessprobe", json!({}))),
        ),
        (&format!("{CONTAINER}/ports/0"), "containerPort", None),
        (&format!("{CONTAINER}/livenessProbe/httpGet"), "port", None),
        (
            &format!("{CONTAINER}/securityContext"),
            "capabilities",
            Some(("capabilities", json!(["ALL"]))),
        ),
        (
            &format!("{CONTAINER}/resources"),
            "limits",
            Some(("limit", json!({}))),
        ),
    ] {
        let mut wrong = right.clone();
        let fields = wrong
            .pointer_mut(place)
            .and_then(Value::as_object_mut)
            .unwrap();
        assert!(fields.remove(key).is_some(), "{place} has no {key}");
        let slip = format!("{place}/{key}: {new:?}");
        if let Some((key, value)) = new {
            fields.insert(key.to_owned(), value);
        }
        assert!(
            check_schema(&wrong, SCHEMA).is_err(),
            "{slip} is not noticed"
        );
    }
}

// --- Pod security ------------------------------------------------------------------------------------------------------

/// What "restricted" asks for, and more: no file can be written, no token is there, and memory has a bound.
#[test]
fn pods_are_restricted() {
    let image = read(&shipped("../image"));
    for object in [object("Deployment"), object("Job")] {
        let (pod, container) = (pod(&object), container(&object));
        for field in [
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "volumes",
            "initContainers",
            "ephemeralContainers",
        ] {
            assert_eq!(pod[field], Value::Null, "{field}");
        }
        assert_eq!(
            pod["securityContext"],
            json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}})
        );
        assert!(
            image.contains("\nUSER = 65532\n"),
            "it is the user of the image"
        );
        assert_eq!(
            container["securityContext"],
            json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            assert!(
                container["resources"]
                    .pointer(amount)
                    .is_some_and(Value::is_string),
                "{amount}"
            );
        }
        assert_eq!(
            container["command"],
            Value::Null,
            "it is the program of the image"
        );
    }
}

// --- Names and ports ---------------------------------------------------------------------------------------------------

#[test]
fn names_and_ports_lead_to_each_other() {
    let (deployment, service) = (object("Deployment"), object("Service"));
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&service["spec"]["selector"], labels);
    let ports = container(&deployment)["ports"].as_array().unwrap();
    let by_name: BTreeMap<&str, (&Value, i64)> = ports
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap(),
                (&port["protocol"], port["containerPort"].as_i64().unwrap()),
            )
        })
        .collect();
    assert_eq!(by_name.len(), ports.len());
    let mut reached = BTreeSet::new();
    for port in service["spec"]["ports"].as_array().unwrap() {
        let (protocol, _) = by_name[port["targetPort"].as_str().unwrap()];
        assert_eq!(protocol, &port["protocol"]);
        reached.insert((
            port["protocol"].as_str().unwrap(),
            port["port"].as_i64().unwrap(),
        ));
    }
    assert_eq!(reached, [("TCP", 7), ("UDP", 7)].into(), "one port");
    // The addresses are those of the ports.
    let words = arguments(&deployment);
    for (name, form) in [
        ("echo-tcp", "tcp://:"),
        ("echo-udp", "udp://:"),
        ("admin", "--admin=http://:"),
    ] {
        assert!(
            words.contains(&format!("{form}{}", by_name[name].1)),
            "{name}: {words:?}"
        );
    }
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        assert_eq!(
            container(&deployment)[probe]["httpGet"],
            json!({"path": path, "port": "admin"})
        );
    }
    let job = object("Job");
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        &pod(&job)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        labels
    );
}

#[test]
fn images_are_those_of_this_version() {
    for folder in FOLDERS {
        let images = &manifest(folder, "kustomization.yaml")["images"];
        assert_eq!(
            *images,
            json!([{"name": "echo-reactor", "newTag": env!("CARGO_PKG_VERSION")}])
        );
        for object in objects(folder)
            .iter()
            .filter(|object| object["kind"] != "Service")
        {
            assert_eq!(container(object)["image"], "echo-reactor");
        }
    }
}

// --- The program -------------------------------------------------------------------------------------------------------

/// Seconds of a flag, as `--print-config` tells them.
fn seconds(config: &str, flag: &str) -> u64 {
    let start = format!("{flag} = ");
    let value = config
        .lines()
        .find_map(|line| line.strip_prefix(&start))
        .unwrap();
    let value = value.split(' ').next().unwrap();
    value.strip_suffix('s').unwrap().parse().unwrap()
}

/// With the arguments of the Deployment, but for the numbers of its ports.
#[test]
fn the_server_of_the_deployment_serves_and_ends_before_sigkill() {
    let deployment = object("Deployment");
    let words: Vec<String> = (arguments(&deployment).iter())
        .map(|word| {
            word.replace(":50007", "127.0.0.1:0")
                .replace(":9090", "127.0.0.1:0")
        })
        .collect();
    let config = ended(program().args(&words).arg("--print-config"));
    assert_eq!(config.code, 0, "{}", config.err);
    let grace = pod(&deployment)["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    let longest = seconds(&config.out, "drain-delay") + seconds(&config.out, "drain-timeout");
    assert!(longest < grace, "{longest} s of {grace} s");
    // The variables of a Service of the name `echo-reactor`, where links of services are switched on.
    let links = [
        ("ECHO_REACTOR_SERVICE_HOST", "10.0.0.1"),
        ("ECHO_REACTOR_PORT", "tcp://10.0.0.1:7"),
    ];
    let server = Serve::start_command(program().args(&words).envs(links), 2);
    server.says("health and metrics at http://");
    server.connect().is_echoed(b"over TCP");
    let Endpoint::Udp(udp) = &server.endpoints[1] else {
        panic!("the second address is one of UDP");
    };
    let send = ended(program().args(["send", &format!("udp://{udp}"), "over UDP"]));
    assert_eq!(send.out, "Received 'over UDP'\n", "{}", send.err);
    server.signal(Signal::SIGTERM);
    server.says("serving on for 10s");
    let told = server.stop(Signal::SIGTERM);
    assert_eq!(told.code, 0, "{}", told.err);
}

/// kubectl(1) as far as the command of the guide uses it: two pods, in each of which a command is run.
const KUBECTL: &str = r#"#!/bin/sh
case "$*" in
  "get pods -l app=load -o name") echo pod/load-0-x7k2p; echo pod/load-1-9qzwd ;;
  "exec -i pod/load-"*" -- echo-reactor "*) shift 4; exec "$@" ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"#;

/// The pods wait, are ready, and are driven by the command that stands in the guide.
#[test]
fn pods_of_the_job_wait_and_are_driven_by_one_command() {
    let job = object("Job");
    let spec = &job["spec"];
    assert_eq!(
        (&spec["completionMode"], &spec["completions"]),
        (&json!("Indexed"), &spec["parallelism"])
    );
    assert_eq!(spec["template"]["metadata"]["labels"]["app"], "load");
    let name = format!("@{}", unique());
    let words: Vec<String> = arguments(&job)
        .iter()
        .map(|word| word.replace("@load", &name))
        .collect();
    let waiting = Serve::start_command(program().args(&words), 1);
    let probe = container(&job)["readinessProbe"]["exec"]["command"]
        .as_array()
        .unwrap();
    let probe: Vec<String> = probe
        .iter()
        .map(|word| word.as_str().unwrap().replace("@load", &name))
        .collect();
    assert_eq!(probe[0], "echo-reactor");
    let ready = ended(program().args(&probe[1..]));
    assert_eq!(ready.code, 0, "{}", ready.err);

    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/benchmarking.md");
    let guide = read(&guide);
    let line = guide
        .lines()
        .find(|line| line.starts_with("kubectl get pods "))
        .unwrap();
    let server = Serve::start(&["tcp://127.0.0.1:0"], &[]);
    let load = format!("{} -c 4 -n 200 -q --format json", server.endpoints[0]);
    let line = line.replace("tcp://server:7", &load);
    assert!(line.contains(&load));
    let directory = Dir::new();
    let kubectl = directory.path("kubectl");
    fs::write(&kubectl, KUBECTL).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_echo-reactor"))
        .parent()
        .unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!(
        "{}:{}:{path}",
        directory.path("").display(),
        programs.display()
    );
    let told = ended(by_shell(&line).env("PATH", path));
    let report: Value =
        serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{}{}", told.out, told.err));
    assert_eq!(report["machines"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["echoes"], 200, "{report}");
    assert_eq!(waiting.stop(Signal::SIGTERM).code, 0);
}
