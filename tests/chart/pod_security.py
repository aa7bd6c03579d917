"""The Pod Security Standard "restricted", every control of it, as a check of a pod's template.

Where versions of Kubernetes differ, the strictest rule counts: what passes here is let in by each
version from 1.30 on. Pods for Windows, and the exemptions of pods with user namespaces, are left
out: this chart has none.
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}
SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t"}
APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def violations(template: dict[str, Any]) -> list[str]:
    """What of a pod, or of a pod's template, "restricted" forbids: a sentence each."""
    return [*_of_pod(template), *_of_every_level(template["spec"]), *_of_containers(template)]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod, whatever they are for."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind) or []]


def _of_pod(template: dict[str, Any]) -> Iterator[str]:
    spec = template["spec"]
    for namespace in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(namespace):
            yield f"{namespace} is set"
    for volume in spec.get("volumes") or []:
        kinds = set(volume) - {"name"}
        if not kinds or not kinds <= VOLUMES:
            yield f"volume {volume['name']} is of kind {sorted(kinds)}"
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is set"
    for name, value in ((template.get("metadata") or {}).get("annotations") or {}).items():
        if name.startswith(APP_ARMOR_ANNOTATION) and not (
            value in ("", "runtime/default") or value.startswith("localhost/")
        ):
            yield f"annotation {name} is {value!r}"


def _of_every_level(spec: dict[str, Any]) -> Iterator[str]:
    """What may be said for the pod and again for each container, which then wins."""
    pod = spec.get("securityContext") or {}
    contexts = [(each["name"], each.get("securityContext") or {}) for each in containers(spec)]
    for where, context in [("the pod", pod), *contexts]:
        if (context.get("windowsOptions") or {}).get("hostProcess"):
            yield f"{where}: hostProcess is set"
        profile = (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{where}: the AppArmor profile is {profile}"
        selinux = context.get("seLinuxOptions") or {}
        if selinux.get("type", "") not in SELINUX_TYPES:
            yield f"{where}: the SELinux type is {selinux['type']}"
        for name in ("user", "role"):
            if selinux.get(name):
                yield f"{where}: the SELinux {name} is set"
        if context.get("runAsUser") == 0:
            yield f"{where}: runAsUser is 0"
        if context.get("runAsNonRoot") is False:
            yield f"{where}: runAsNonRoot is false"
        seccomp = (context.get("seccompProfile") or {}).get("type")
        if seccomp not in (None, "RuntimeDefault", "Localhost"):
            yield f"{where}: the seccomp profile is {seccomp}"
    for where, context in contexts:
        if not (pod.get("runAsNonRoot") or context.get("runAsNonRoot")):
            yield f"{where}: runAsNonRoot is not true"
        if not (pod.get("seccompProfile") or context.get("seccompProfile")):
            yield f"{where}: there is no seccomp profile"


def _of_containers(template: dict[str, Any]) -> Iterator[str]:
    for container in containers(template["spec"]):
        where, context = container["name"], container.get("securityContext") or {}
        if context.get("privileged"):
            yield f"{where}: privileged is set"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{where}: allowPrivilegeEscalation is not false"
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{where}: not all capabilities are dropped"
        if added := set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            yield f"{where}: capabilities {sorted(added)} are added"
        if context.get("procMount", "Default") != "Default":
            yield f"{where}: procMount is {context['procMount']}"
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield f"{where}: hostPort {port['hostPort']} is taken"
        for name, handler in _handlers(container):
            for kind in ("httpGet", "tcpSocket"):
                if (handler.get(kind) or {}).get("host"):
                    yield f"{where}: {name} names a host"


def _handlers(container: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield name, container.get(name) or {}
    for name, handler in (container.get("lifecycle") or {}).items():
        yield name, handler if isinstance(handler, dict) else {}
