"""Values that contradict each other are refused, with a sentence that says what to change."""

from __future__ import annotations

import re

import helm_python as helm
import pytest
import yaml

from tests.chart.rendering import Refused, loaded, render

CONTRADICTIONS: dict[str, tuple[str, str]] = {
    # what is wrong: the values, and what the sentence has to say
    "a grace period shorter than preStop and drain": (
        "{server: {drain: {preStopSeconds: 5, timeoutSeconds: 60}}}",
        r"server\.drain\.gracePeriodSeconds \(40\) must be longer .* \(5 \+ 60\).* set it to 70",
    ),
    "a grace period of exactly preStop and drain": (
        "{server: {drain: {preStopSeconds: 5, timeoutSeconds: 25, gracePeriodSeconds: 30}}}",
        r"server\.drain\.gracePeriodSeconds \(30\)",
    ),
    "a mode by its name of before": (
        "{server: {tls: {mode: made}}}",
        r"server\.tls\.mode made is now called selfSigned: set it to that, or to authority",
    ),
    "a Secret, and an authority of the release's own": (
        "{server: {tls: {secretName: mine}}}",
        r"server\.tls\.secretName \(mine\) contradicts server\.tls\.mode authority.* set the mode",
    ),
    "a Secret, and a self-signed certificate": (
        "{server: {tls: {mode: selfSigned, secretName: mine}}}",
        r"server\.tls\.secretName \(mine\) contradicts server\.tls\.mode selfSigned.* set the mode",
    ),
    "mode secret without a Secret": (
        "{server: {tls: {mode: secret}}}",
        r"server\.tls\.mode secret needs server\.tls\.secretName",
    ),
    "cert-manager without an issuer": (
        "{server: {tls: {mode: certManager}}}",
        r"server\.tls\.mode certManager needs server\.tls\.certManager\.issuerRef\.name",
    ),
    "an issuer without cert-manager": (
        "{server: {tls: {mode: secret, secretName: mine, certManager: {issuerRef: {name: ca}}}}}",
        r"issuerRef contradicts server\.tls\.mode secret.*set the mode to certManager",
    ),
    "names for a self-signed certificate": (
        "{server: {tls: {mode: selfSigned, extraDnsNames: [a.example]}}}",
        r"server\.tls\.extraDnsNames .* server\.tls\.mode selfSigned: set the mode to authority",
    ),
    "names for a certificate that is there": (
        "{server: {tls: {mode: secret, secretName: mine, extraIpAddresses: [192.0.2.1]}}}",
        r"server\.tls\.extraDnsNames and extraIpAddresses .* server\.tls\.mode secret: set the mode",
    ),
    "renewal before the certificate is there": (
        "{server: {tls: {mode: certManager, certManager:"
        " {issuerRef: {name: ca}, duration: 24h, renewBefore: 24h}}}}",
        r"renewBefore \(24h\) must be less than .* \(24h\).*lower it",
    ),
    "a name in a certificate that the admin port does not have": (
        "{admin: {tls: {serverName: a.example}}}",
        r"admin\.tls\.serverName \(a\.example\) does nothing without admin\.tls\.secretName: set",
    ),
    "a key of a Secret that the admin port does not have": (
        "{admin: {auth: {tokenSecret: {scrapeKey: one}}}}",
        r"scrapeKey \(one\) does nothing without admin\.auth\.tokenSecret\.name: set",
    ),
    "one port on the nodes for two things": (
        "{server: {externalService: {enabled: true, type: LoadBalancer, externalTrafficPolicy: Local,"
        " healthCheckNodePort: 30001, adminPort: {enabled: true, nodePort: 30001}}}}",
        r"healthCheckNodePort and adminPort\.nodePort are both 30001.*choose two ports",
    ),
    "a scrape that may take longer than until the next": (
        "{monitoring: {podMonitor: {enabled: true, interval: 1m, scrapeTimeout: 1m1s}}}",
        r"podMonitor\.scrapeTimeout \(1m1s\) is above interval \(1m\).*lower it",
    ),
    "fixed replicas with an autoscaler": (
        "{server: {replicas: 2, autoscaling: {enabled: true}}}",
        r"server\.replicas \(2\) contradicts server\.autoscaling\.enabled.*leave server\.replicas out",
    ),
    "no replicas with an autoscaler": (
        "{server: {replicas: 0, autoscaling: {enabled: true}}}",
        r"server\.replicas \(0\) contradicts server\.autoscaling\.enabled",
    ),
    "an autoscaler of a DaemonSet": (
        "{server: {kind: DaemonSet, autoscaling: {enabled: true}}}",
        r"server\.autoscaling\.enabled contradicts server\.kind DaemonSet",
    ),
    "an autoscaler that has more at least than at most": (
        "{server: {autoscaling: {enabled: true, minReplicas: 7, maxReplicas: 3}}}",
        r"minReplicas \(7\) is above maxReplicas \(3\)",
    ),
    "an autoscaler that goes by CPU time that is not requested": (
        "{server: {autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}}",
        r"set server\.resources\.requests\.cpu",
    ),
    "replicas of a server's DaemonSet": (
        "{server: {kind: DaemonSet, replicas: 2}}",
        r"server\.replicas \(2\) contradicts server\.kind DaemonSet",
    ),
    "replicas of a client's DaemonSet": (
        "{client: {kind: DaemonSet, replicas: 2}}",
        r"client\.replicas \(2\) contradicts client\.kind DaemonSet",
    ),
    "a budget with both": (
        "{server: {podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}}}",
        r"server\.podDisruptionBudget has minAvailable and maxUnavailable.*leave one out",
    ),
    "a budget that lets no pod go": (
        "{server: {replicas: 3, podDisruptionBudget: {maxUnavailable: 0}}}",
        r"server\.podDisruptionBudget\.maxUnavailable of 0 .*set it to 1",
    ),
    "a budget that keeps all pods": (
        "{server: {replicas: 3, podDisruptionBudget: {minAvailable: 3}}}",
        r"server\.podDisruptionBudget\.minAvailable of 3 lets no pod of 3",
    ),
    "a budget that keeps all pods by a percentage": (
        '{server: {replicas: 3, podDisruptionBudget: {minAvailable: "67%"}}}',
        r"server\.podDisruptionBudget\.minAvailable of 67% lets no pod of 3",
    ),
    "pods that can never be replaced": (
        "{server: {rollingUpdate: {maxUnavailable: 0, maxSurge: 0}}}",
        r"server\.rollingUpdate has maxUnavailable 0 and maxSurge 0.*raise one",
    ),
    "a DaemonSet that is replaced in two ways": (
        "{client: {kind: DaemonSet, rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}}",
        r"client\.rollingUpdate of a DaemonSet .*set one of them to 0",
    ),
    "a node's port of a ClusterIP": (
        "{server: {externalService: {enabled: true, type: ClusterIP, nodePort: 30443}}}",
        r"server\.externalService\.nodePort contradicts type ClusterIP",
    ),
    "a traffic policy of a ClusterIP": (
        "{server: {externalService: {enabled: true, type: ClusterIP, externalTrafficPolicy: Local}}}",
        r"externalTrafficPolicy contradicts type ClusterIP",
    ),
    "a load balancer's networks of a NodePort": (
        "{server: {externalService: {enabled: true, loadBalancerSourceRanges: [10.0.0.0/8]}}}",
        r"loadBalancerSourceRanges contradict type NodePort.*set the type to LoadBalancer",
    ),
    "a health check's port where there is none": (
        "{server: {externalService: {enabled: true, healthCheckNodePort: 30444}}}",
        r"server\.externalService\.healthCheckNodePort is only for type LoadBalancer",
    ),
    "a port on nodes of an admin port that is not there": (
        "{server: {externalService: {enabled: true, adminPort: {nodePort: 30444}}}}",
        r"server\.externalService\.adminPort\.nodePort is set, but adminPort\.enabled is false",
    ),
    "two IP families of one stack": (
        "{server: {service: {ipFamilies: [IPv4, IPv6]}}}",
        r"server\.service\.ipFamilies names two.*set server\.service\.ipFamilyPolicy",
    ),
    "nothing at all": (
        "{server: {enabled: false}, client: {enabled: false}}",
        r"server\.enabled and client\.enabled are both false.*enable one",
    ),
    "a client without anything to ping": (
        "{server: {enabled: false}}",
        r"nothing to ping: enable the server, or say in client\.targets",
    ),
    "the old name of the targets": (
        "{client: {servers: [https://a.example]}}",
        r"client\.servers is now called client\.targets",
    ),
    "slices of another server": (
        "{client: {discovery: endpointslice, targets: [https://a.example]}}",
        r"client\.discovery endpointslice .* contradicts client\.targets",
    ),
    "pauses that shrink": (
        "{client: {settings: {backoffMin: 2, backoffMax: 1}}}",
        r"client\.settings\.backoffMin \(2\) is above backoffMax \(1\)",
    ),
    "pauses that shrink below the default": (
        "{client: {settings: {backoffMax: 0.01}}}",
        r"client\.settings\.backoffMin \(0\.1\) is above backoffMax \(0\.01\)",
    ),
    "buckets that do not rise": (
        "{client: {settings: {rttBuckets: [0.001, 0.1, 0.05]}}}",
        r"client\.settings\.rttBuckets has 0\.05 after 0\.1",
    ),
    "several to trust": (
        "{client: {targets: [https://a.example], tls: {insecure: true, caSecret: {name: ca}}}}",
        r"client\.tls says several times whom to trust \(insecure, caSecret\): leave one",
    ),
    "an authority for a self-signed certificate": (
        "{server: {tls: {mode: selfSigned}}, client: {tls: {caSecret: {name: ca}}}}",
        r"client\.tls\.caSecret cannot verify .*set the mode to authority, secret or certManager",
    ),
    "no trust in a self-signed certificate": (
        "{server: {tls: {mode: selfSigned}}, client: {tls: {insecure: false}}}",
        r"client\.tls\.insecure is false, but no client can verify",
    ),
    "tokens without a Secret": (
        "{server: {auth: {mode: token}}, client: {auth: {mode: secret, tokenSecret: {name: a}}}}",
        r"server\.auth\.mode token needs server\.auth\.tokenSecret\.name",
    ),
    "a Secret of tokens that nobody asks for": (
        "{server: {auth: {tokenSecret: {name: tokens}}}}",
        r"server\.auth\.tokenSecret \(tokens\) contradicts server\.auth\.mode none",
    ),
    "a client's token without a Secret": (
        "{client: {auth: {mode: secret}}}",
        r"client\.auth\.mode secret needs client\.auth\.tokenSecret\.name",
    ),
    "a client's Secret that it doesn't use": (
        "{client: {auth: {mode: serviceAccount, tokenSecret: {name: a}}}}",
        r"client\.auth\.tokenSecret \(a\) contradicts client\.auth\.mode serviceAccount",
    ),
    "a client that the server refuses for its missing token": (
        "{server: {auth: {mode: token, tokenSecret: {name: tokens}}}}",
        r"server\.auth\.mode token refuses the client.*client\.auth\.tokenSecret\.name",
    ),
    "a client that the server refuses for its missing service account's token": (
        "{server: {auth: {mode: kubernetes}}}",
        r"server\.auth\.mode kubernetes refuses the client.*set that to serviceAccount",
    ),
    "a token for somebody else": (
        "{server: {auth: {mode: kubernetes}}, client: {auth: {mode: serviceAccount, audience: x}}}",
        r"client\.auth\.audience \(x\) is not server\.auth\.audience \(pingpong\)",
    ),
    "rights for every pod of the namespace": (
        "{server: {auth: {mode: kubernetes}, serviceAccount: {create: false}},"
        " client: {auth: {mode: serviceAccount}}}",
        r"server\.auth\.mode kubernetes would let every pod .*set server\.serviceAccount\.create",
    ),
    "EndpointSlices for every pod of the namespace": (
        "{client: {discovery: endpointslice, serviceAccount: {create: false}}}",
        r"would let every pod .*set client\.serviceAccount\.create",
    ),
    "one service account twice": (
        "{server: {serviceAccount: {name: a}}, client: {serviceAccount: {name: a}}}",
        r"server\.serviceAccount\.name and client\.serviceAccount\.name are both a",
    ),
    "a label that selects": (
        "{server: {podLabels: {app.kubernetes.io/component: other}}}",
        r"server\.podLabels has app\.kubernetes\.io/component.*take it out",
    ),
    "a label of all that selects": (
        "{commonLabels: {app.kubernetes.io/name: other}}",
        r"commonLabels has app\.kubernetes\.io/name.*take it out",
    ),
    "a label twice": (
        "{commonLabels: {team: a}, client: {podLabels: {team: b}}}",
        r"client\.podLabels has team, which pods have already",
    ),
    "a setting as a variable": (
        "{client: {extraEnv: [{name: PINGPONG_INTERVAL, value: '1'}]}}",
        r"client\.extraEnv has PINGPONG_INTERVAL: settings belong in client\.settings",
    ),
    "a variable twice": (
        "{server: {extraEnv: [{name: A, value: '1'}, {name: A, value: '2'}]}}",
        r"server\.extraEnv has A twice",
    ),
    "a constraint twice": (
        "{server: {topologySpreadConstraints: ["
        "{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule},"
        "{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]}}",
        r"server\.topologySpreadConstraints has zone and DoNotSchedule twice",
    ),
    "a request above its limit": (
        "{client: {resources: {requests: {memory: 256Mi}}}}",
        r"client\.resources\.requests\.memory \(256Mi\) is above its limit \(128Mi\).*raise",
    ),
    "two ways to be scraped": (
        "{monitoring: {podMonitor: {enabled: true}, serviceMonitor: {enabled: true}}}",
        r"monitoring\.podMonitor and monitoring\.serviceMonitor .*enable one",
    ),
    "a test without time": (
        "{test: {count: 200, deadlineSeconds: 30}}",
        r"test\.deadlineSeconds \(30\) is too short for test\.count \(200\)",
    ),
}


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_is_refused_and_says_what_to_change(values: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        render(yaml.safe_load(values))
    assert not refused.value.by_schema
    # One sentence for one contradiction, on one line.
    [sentence] = refused.value.sentences
    assert re.search(said, sentence), sentence


def test_several_are_told_at_once() -> None:
    values = "{server: {kind: DaemonSet, replicas: 2}, client: {kind: DaemonSet, replicas: 3}}"
    with pytest.raises(Refused) as refused:
        render(yaml.safe_load(values))
    assert [sentence.split()[0] for sentence in refused.value.sentences] == [
        "server.replicas",
        "client.replicas",
    ]


def test_what_is_said_of_a_part_that_is_not_installed_contradicts_nothing() -> None:
    assert render(
        yaml.safe_load(
            "{server: {enabled: false, kind: DaemonSet, replicas: 2, tls: {mode: secret},"
            " drain: {gracePeriodSeconds: 1}}, client: {targets: [https://a.example]}}"
        )
    ).kinds() == {"Deployment", "ServiceAccount", "Pod"}


@pytest.mark.parametrize("version", ["1.29.14", "1.20.1", "1.9.0"])
def test_a_cluster_that_is_too_old_is_named(version: str) -> None:
    with pytest.raises(Refused, match=rf"Kubernetes v{version}.*needs 1\.30 or newer"):
        render(kube_version=version)


@pytest.mark.parametrize("version", ["1.30.0", "1.30.14-gke.100", "1.37.0", "2.0.0"])
def test_a_cluster_that_is_new_enough_is_taken(version: str) -> None:
    assert render(kube_version=version).objects


def test_helm_itself_says_no_more_than_the_sentences() -> None:
    # As `helm install` prints it: the place in a template first, then what is ours.
    with pytest.raises(helm.HelmRenderError) as error:
        loaded().render({"server": {"kind": "DaemonSet", "replicas": 2}}, name="a")
    assert str(error.value).startswith("execution error at (pingpong/templates/check.yaml:")
    assert "error calling" not in str(error.value)
