"""The manifests follow the schemas of their kinds, and the names in them exist in manifests, images and code."""

import copy
import json
import re

import pytest
import yaml

from toolchain.cli import parser
from toolchain.ship.launch import OWN, SHARED_MEMORY, STOCK
from toolchain.ship.models import names

# API versions of Kubernetes itself.
STANDARD = ("apps/v1", "v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1")

# Deployment -> the stage of the Dockerfile that builds its image.
IMAGES = {"sst2-triton": "triton", "sst2-service": "service"}


def one(manifests, kind, name=None):
    (found,) = (each for each in manifests if each["kind"] == kind and name in (None, each["metadata"]["name"]))
    return found


def pod(manifests, name):
    return one(manifests, "Deployment", name)["spec"]["template"]["spec"]


def runtime(manifests):
    return one(manifests, "ServingRuntime")["spec"]


def test_manifests_follow_the_schemas_of_kubernetes(manifests):
    validator = pytest.importorskip("kubernetes_validate")
    mine = [found for found in manifests if found["apiVersion"] in STANDARD]
    assert {found["kind"] for found in mine} >= {"Deployment", "Service", "HorizontalPodAutoscaler", "ConfigMap"}
    own = {key: runtime(manifests)[key] for key in ("containers", "volumes")}  # a pod in all but its kind
    mine.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kserve"}, "spec": own})
    for found in mine:
        validator.validate(found, "1.31", strict=True)
        validator.validate(found, validator.latest_version(), strict=True)


def test_pod_monitors_follow_their_schema(manifests):
    """The schema of the Prometheus operator ignores unknown fields, so the result is compared."""
    schema = pytest.importorskip("cloudcoil.models.prometheus_operator.v1").PodMonitor

    def read(found):
        return schema.model_validate(found).model_dump(by_alias=True, exclude_unset=True, mode="json")

    for name in ("sst2-triton", "sst2-service"):
        found = one(manifests, "PodMonitor", name)
        assert read(found) == found
        wrong = copy.deepcopy(found)
        wrong["spec"]["podMetricsEndpoints"][0]["ports"] = "metrics"
        assert read(wrong) != wrong


@pytest.fixture
def faults(by_path, root):
    """Return a function that returns the faults of a KServe object."""
    module = by_path("docker/kserve")
    try:
        kinds = module.read_kinds(root)
    except module.NoKserveError as why:
        pytest.skip(str(why))
    classes = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}
    return lambda found: module.faults(found, classes[found["kind"]], kinds)


def test_kserves_kinds_follow_its_package(manifests, faults):
    for kind in ("ServingRuntime", "InferenceService"):
        assert faults(one(manifests, kind)) == []


def test_a_wrong_field_of_kserve_is_found(manifests, faults):
    found = copy.deepcopy(one(manifests, "InferenceService"))
    found["spec"]["predictor"] |= {"minReplica": 0, "maxReplicas": "8"}
    assert faults(found) == [".spec.predictor.maxReplicas: no int", ".spec.predictor.minReplica"]


def test_references_between_manifests_exist(manifests):
    there = {(found["kind"], found["metadata"]["name"]) for found in manifests}
    rules = yaml.safe_load(one(manifests, "ConfigMap")["data"]["config.yaml"])["rules"]
    made = {rule["name"]["as"] for rule in rules}
    for found in manifests:
        spec = found.get("spec", {})
        if found["kind"] == "HorizontalPodAutoscaler":
            assert ("Deployment", spec["scaleTargetRef"]["name"]) in there
            assert {metric["pods"]["metric"]["name"] for metric in spec["metrics"]} <= made
        if found["kind"] in ("Service", "PodMonitor", "PodDisruptionBudget", "Deployment"):
            chosen = spec["selector"].get("matchLabels", spec["selector"])
            assert one(manifests, "Deployment", chosen["app"])["spec"]["template"]["metadata"]["labels"] == chosen
        if found["kind"] == "InferenceService":
            assert ("ServingRuntime", spec["predictor"]["model"]["runtime"]) in there
            formats = {each["name"] for each in runtime(manifests)["supportedModelFormats"]}
            assert spec["predictor"]["model"]["modelFormat"]["name"] in formats
            (volume,) = (each for each in pod(manifests, "sst2-triton")["volumes"] if each["name"] == "models")
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert spec["predictor"]["model"]["storageUri"] == f"pvc://{claim}"


@pytest.mark.parametrize("name", IMAGES)
def test_ports_are_those_of_the_image_and_their_names_are_used(manifests, stages, name):
    (container,) = pod(manifests, name)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    exposed = re.search(r"^EXPOSE (.*)$", stages[IMAGES[name]], re.MULTILINE)[1]
    assert sorted(ports.values()) == sorted(map(int, exposed.split()))
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert [(probe["port"], probe["path"].rpartition("/")[2]) for probe in probes] == [
        ("http", "ready"),
        ("http", "ready"),
        ("http", "live"),
    ]
    for port in one(manifests, "Service", name)["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    for endpoint in one(manifests, "PodMonitor", name)["spec"]["podMetricsEndpoints"]:
        assert endpoint["port"] in ports


def test_images_are_built_by_the_compose_file(manifests, services, dockerfile):
    built = {service["image"]: service["build"]["target"] for service in services.values()}
    for name, stage in IMAGES.items():
        (container,) = pod(manifests, name)["containers"]
        assert built[container["image"]] == stage
    (container,) = runtime(manifests)["containers"]
    assert container["image"] == services["triton"]["image"] == OWN
    version = re.search(r"ARG TRITON=(\S+)", dockerfile)[1]
    assert f"nvcr.io/nvidia/tritonserver:{version}-py3" == STOCK
    assert OWN.endswith(f":{version}")


def test_triton_starts_with_the_images_entry_point(root, manifests, stages, services):
    """KServe's container does so too, with another port and folder."""
    script, command = re.search(r"COPY (docker/\S+) /usr/local/bin/(\S+)", stages["triton"]).groups()
    assert (root / script).stat().st_mode & 0o111 == 0o111
    assert json.loads(re.search(r"^CMD (.*)", stages["triton"], re.MULTILINE)[1]) == [command]
    assert not {"command", "entrypoint"} & services["triton"].keys()
    (deployed,) = pod(manifests, "sst2-triton")["containers"]
    assert not {"command", "args"} & deployed.keys()
    (container,) = runtime(manifests)["containers"]
    assert container["args"][0] == command
    assert "command" not in container
    assert f"--http-port={container['ports'][0]['containerPort']}" in container["args"]
    default = re.search(r"\$\{MODELS:-(.*)\}", (root / script).read_text())[1]
    assert container["env"] == [{"name": "MODELS", "value": "/mnt/models"}]
    assert default in {mount["mountPath"] for mount in deployed["volumeMounts"]}
    assert services["triton"]["volumes"][0].endswith(f":{default}:ro")


def test_arguments_of_the_service_are_valid_options(root, manifests, stages, services):
    commands = [pod(manifests, "sst2-service")["containers"][0]["args"], services["service"]["command"]]
    for name in ("service", "service-trt"):
        commands.append(json.loads(re.search(r"^CMD (.*)", stages[name], re.MULTILINE)[1]))
    for command in commands:
        read = parser().parse_args(command)
        assert (read.bundle, read.host) == ("/bundle", "0.0.0.0")
    assert services["service"]["volumes"][0].endswith(":/bundle:ro")


def test_the_service_finds_its_folders_and_secrets(manifests):
    spec = pod(manifests, "sst2-service")
    (container,) = spec["containers"]
    read = parser().parse_args(container["args"])
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (secret,) = (volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume)
    (endpoint,) = one(manifests, "PodMonitor", "sst2-service")["spec"]["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert read.bundle == places["bundle"]
    assert read.token_file == f"{places['token']}/{credentials['key']}"
    assert credentials["name"] == secret
    assert read.name == "sst2"  # as the rules of its metrics name it


def test_shared_memory_has_the_same_size_everywhere(manifests, services):
    kubernetes = SHARED_MEMORY.replace("m", "Mi")
    assert services["triton"]["shm_size"] == SHARED_MEMORY
    for spec in (pod(manifests, "sst2-triton"), runtime(manifests)):
        (volume,) = (volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "shm")
        assert volume == {"medium": "Memory", "sizeLimit": kubernetes}
        mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        assert mounts["shm"] == "/dev/shm"


def test_the_rules_use_the_queues_of_classifier_and_service(manifests):
    for rule in yaml.safe_load(one(manifests, "ConfigMap")["data"]["config.yaml"])["rules"]:
        asked = set(re.findall(r'model="(\w+)"', rule["seriesQuery"] + rule["metricsQuery"]))
        model = rule["name"]["as"].removesuffix("_queue_us")
        assert asked == {model}
        assert model in (names("sst2")["classifier"], "sst2")


def test_pods_run_without_privileges(manifests):
    specs = [pod(manifests, name) for name in IMAGES]
    predictor = one(manifests, "InferenceService")["spec"]["predictor"]
    assert not any(spec["automountServiceAccountToken"] for spec in (*specs, predictor))
    for spec in [*specs, runtime(manifests)]:
        for container in spec["containers"]:
            rights = spec.get("securityContext", {}) | container["securityContext"]
            assert rights == {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize("name", IMAGES)
def test_only_clients_and_metrics_reach_a_pod_and_it_reaches_nothing(manifests, name):
    policy, monitor = one(manifests, "NetworkPolicy", name)["spec"], one(manifests, "PodMonitor", name)["spec"]
    assert policy["podSelector"] == one(manifests, "Deployment", name)["spec"]["selector"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    clients, metrics = policy["ingress"]
    ports = {port["name"] for port in one(manifests, "Service", name)["spec"]["ports"]}
    assert {port["port"] for port in clients["ports"]} == ports
    assert [port["port"] for port in metrics["ports"]] == [each["port"] for each in monitor["podMetricsEndpoints"]]
    assert all(rule["from"] for rule in (clients, metrics))


def test_a_pod_stops_only_after_the_proxies_have(manifests):
    (triton,) = pod(manifests, "sst2-triton")["containers"]
    assert triton["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "15"]
    service = pod(manifests, "sst2-service")
    assert 0 < parser().parse_args(service["containers"][0]["args"]).drain < service["terminationGracePeriodSeconds"]
