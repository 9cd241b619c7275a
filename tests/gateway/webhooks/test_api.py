"""Endpoints over HTTP: keys shown once, other tenants' are not there."""

from __future__ import annotations

from ephemeralml.producer.gateway.webhooks.keys import Master
from ephemeralml.producer.gateway.webhooks.settings import WebhookSettings

from ..conftest import Site


def test_the_life_of_an_endpoint(site: Site) -> None:
    site.client.app.state.webhooks = (WebhookSettings(max_endpoints=1), Master(bytes(32)))  # type: ignore[attr-defined]
    call, auth = site.client.request, site.auth()
    wanted = {"url": "https://hooks.example/x", "signing": "v1a"}
    made = call("POST", "/v1/webhooks", json=wanted, headers=auth)
    assert made.status_code == 201, made.text
    name, key = made.json()["id"], made.json()["key"]
    assert key.startswith("whpk_")
    assert call("POST", "/v1/webhooks", json=wanted, headers=auth).json()["code"] == "QUOTA_WEBHOOKS"
    shown = call("GET", f"/v1/webhooks/{name}", headers=auth)
    assert "key" not in shown.json()
    rotated = call("POST", f"/v1/webhooks/{name}/rotate", headers=auth)
    assert rotated.json()["key"] != key
    sent = call("POST", f"/v1/webhooks/{name}/test", headers=auth)
    listed = call("GET", f"/v1/webhooks/{name}/deliveries", headers=auth).json()["data"]
    assert [each["id"] for each in listed] == [sent.json()["id"]]
    again = call("POST", f"/v1/webhooks/{name}/deliveries/{sent.json()['id']}/replay", headers=auth)
    assert again.json() == {"replayed": 1}
    off = call("PATCH", f"/v1/webhooks/{name}", json={"enabled": False}, headers=auth)
    assert off.json()["enabled"] is False
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test")):
        body: dict[str, str] | None = {} if method == "PATCH" else None
        other = call(method, f"/v1/webhooks/{name}{path}", json=body, headers=site.auth("umbrella"))
        assert (other.status_code, other.json()["code"]) == (404, "WEBHOOK_NOT_FOUND")
    assert call("GET", "/v1/webhooks", headers=site.auth("umbrella")).json() == {"data": []}
    assert call("DELETE", f"/v1/webhooks/{name}", headers=auth).status_code == 204


def test_bad_addresses_and_a_gateway_without_a_master_secret(lite: Site) -> None:
    wanted = {"url": "https://10.0.0.1/"}
    lite.client.app.state.webhooks = None  # type: ignore[attr-defined]
    refused = lite.client.post("/v1/webhooks", json=wanted, headers=lite.auth())
    assert (refused.status_code, refused.json()["code"]) == (503, "WEBHOOKS_OFF")
    lite.client.app.state.webhooks = (WebhookSettings(), Master(bytes(32)))  # type: ignore[attr-defined]
    refused = lite.client.post("/v1/webhooks", json=wanted, headers=lite.auth())
    assert (refused.status_code, refused.json()["code"]) == (400, "WEBHOOK_ADDRESS_REFUSED")
