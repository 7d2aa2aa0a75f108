"""Stripe's own library as a judge, run by tests/api/stripe/sdk.rs: see tests/js/stripe.mjs, which does the same.

Besides, it knows the fields of every object, and names those of the fake's answers that it does not know.
"""

import json
import sys
import time

from stripe import StripeClient, StripeError, StripeObject, Webhook, WebhookSignature
from stripe._stripe_object import UntypedStripeObject

told = json.load(sys.stdin)


def connect(key):
    return StripeClient(key, base_addresses={"api": told["url"]}, max_network_retries=0)


client = connect(told["key"])
api = client.v1
answers = {}
seen = []


def refusal(call):
    """What an error says of itself, under the names that the JavaScript library has for it."""
    try:
        call()
    except StripeError as error:
        names = {"IdempotencyError": "StripeIdempotencyError", "InvalidRequestError": "StripeInvalidRequestError"}
        kind = type(error).__name__
        request = "string" if isinstance(error.request_id, str) else "undefined"
        return [names.get(kind, f"Stripe{kind}"), error.code, error.http_status, request]
    return "it worked"


def look(found):
    seen.append(found)
    return found


def every(listed):
    seen.append(listed)
    return [look(entry) for entry in listed.auto_paging_iter()]


def unix(moment):
    assert moment is None or type(moment) is int, moment
    return moment


def create(of):
    options = {"idempotency_key": f"customer-{told['nonce']}"}
    return api.customers.create({"metadata": {"user_id": of}}, options)


answers["customer"] = look(create(told["user"])).id
answers["again"] = create(told["user"]).id
answers["mismatch"] = refusal(lambda: create(told["other_user"]))

order = told["order"]
session = look(
    api.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": answers["customer"],
            "client_reference_id": told["user"],
            "line_items": [{"price": order["price"], "quantity": 1}],
            "success_url": order["success_url"],
            "cancel_url": order["cancel_url"],
            "subscription_data": {"metadata": {"user_id": told["user"]}},
            "metadata": {"user_id": told["user"]},
        },
        {"idempotency_key": told["nonce"]},
    )
)
answers["checkout"] = [session.id, session.url, unix(session.expires_at)]
answers["expired"] = look(api.checkout.sessions.expire(session.id)).status
answers["expired_again"] = refusal(lambda: api.checkout.sessions.expire(session.id))
answers["ended_as"] = look(api.checkout.sessions.retrieve(session.id)).status

portal = look(
    api.billing_portal.sessions.create({"customer": told["customer"], "return_url": told["return_url"]})
)
answers["portal"] = portal.url
answers["cancelled"] = api.subscriptions.update(told["subscription"], {"cancel_at_period_end": "true"}).id

answers["owner"] = look(api.customers.retrieve(told["customer"])).metadata["user_id"]
subscriptions = every(api.subscriptions.list({"customer": told["customer"], "status": "all", "limit": 100}))
answers["subscriptions"] = []
for found in subscriptions:
    item = found.items.data[0]
    period = [unix(item.current_period_start), unix(item.current_period_end)]
    ends = [unix(found.cancel_at), unix(found.ended_at)]
    answers["subscriptions"].append([found.id, found.status, item.price.id, *period, *ends])

charged = look(api.charges.retrieve(told["charge"], {"expand": ["customer", "refunds"]}))
payments = every(
    api.invoice_payments.list(
        {"payment": {"type": "payment_intent", "payment_intent": charged.payment_intent}, "limit": 100}
    )
)
invoice = look(api.invoices.retrieve(payments[0].invoice))
paid = invoice.parent.subscription_details.subscription
begun = [unix(line.period.start) for line in invoice.lines.data]
answers["refunded"] = [charged.refunded, charged.customer.metadata["user_id"], paid, begun]

disputed = look(api.disputes.retrieve(told["dispute"]))
owner = look(api.charges.retrieve(disputed.charge, {"expand": ["customer"]})).customer
answers["disputed"] = [disputed.status, unix(disputed.created), owner.id]

answers["deleted"] = look(api.customers.retrieve(told["deleted"])).deleted
answers["missing"] = refusal(lambda: api.customers.retrieve("cus_unknown"))
answers["nothing"] = refusal(
    lambda: every(api.subscriptions.list({"customer": "cus_unknown", "status": "all", "limit": 100}))
)
answers["stranger"] = refusal(lambda: connect("sk_test_wrong").v1.customers.retrieve(told["customer"]))

undelivered = every(
    api.events.list(
        {
            "delivery_success": "false",
            "types": told["kinds"],
            "created": {"gte": told["since"]},
            "limit": 100,
        }
    )
)
answers["undelivered"] = [[event.id, event.type, unix(event.created)] for event in undelivered]


def read(notice):
    return Webhook.construct_event(notice["body"], notice["signature"], told["secret"])


first = told["notices"][0]
forged = {**first, "body": first["body"].replace("evt", "evt_")}
answers["notices"] = [look(read(notice)).id for notice in told["notices"]]
answers["thin"] = [
    client.parse_event_notification(notice["body"], notice["signature"], told["secret"]).id for notice in told["thin"]
]
answers["forged"] = refusal(lambda: read(forged))[0]

signed = []
for notice in told["notices"]:
    signature = WebhookSignature.generate_signature_header(notice["body"], told["secret"], int(time.time()))
    signed.append({"body": notice["body"], "signature": signature})


def unknown(found, where):
    """The fields of an object, and of all within, that its class does not have."""
    if isinstance(found, list):
        return [name for entry in found for name in unknown(entry, where)]
    if not isinstance(found, StripeObject):
        return []
    # A list's class does not say that it has its kind.
    known = {"object"} | {name for kind in type(found).__mro__ for name in getattr(kind, "__annotations__", {})}
    # Some hold whatever somebody put there.
    is_open = type(found) in (StripeObject, UntypedStripeObject)
    fields = found._data
    strange = [f"{where}.{name}" for name in fields if not is_open and name not in known]
    inner = [name for field, value in fields.items() for name in unknown(value, f"{where}.{field}")]
    return strange + inner


strange = sorted({name for found in seen for name in unknown(found, type(found).__name__)})
print(json.dumps({"answers": answers, "signed": signed, "unknown": strange}))
