// Stripe's own library as a judge, run by tests/api/stripe/sdk.rs: it calls the fake as our client does, reads what the fake
// answers and signs, and signs what our server has to accept. What it is told comes in by stdin, what it found goes out by
// stdout, both as JSON. tests/peers/stripe_sdk.py is the same in Python.

import { text } from 'node:stream/consumers';

import Stripe from 'stripe';

const told = JSON.parse(await text(process.stdin));
const { hostname: host, port } = new URL(told.url);
const connect = (key) =>
  new Stripe(key, { host, port, protocol: 'http', maxNetworkRetries: 0, telemetry: false });
const stripe = connect(told.key);

/** What an error says of itself. */
const refusal = (call) =>
  call.then(
    () => 'it worked',
    ({ type, code, statusCode, requestId }) => [type, code ?? null, statusCode, typeof requestId],
  );
const all = async (list) => {
  const found = [];
  for await (const entry of list) found.push(entry);
  return found;
};
const unix = (time) => {
  if (time !== null && !Number.isInteger(time)) throw new Error(`${time} is no time`);
  return time;
};

const answers = {};
const { user, nonce, other_user, customer, charge, dispute, subscription, deleted } = told;

const create = (of) =>
  stripe.customers.create({ metadata: { user_id: of } }, { idempotencyKey: `customer-${nonce}` });
answers.customer = (await create(user)).id;
answers.again = (await create(user)).id;
answers.mismatch = await refusal(create(other_user));

const { order } = told;
const session = await stripe.checkout.sessions.create(
  {
    mode: 'subscription',
    customer: answers.customer,
    client_reference_id: user,
    line_items: [{ price: order.price, quantity: 1 }],
    success_url: order.success_url,
    cancel_url: order.cancel_url,
    subscription_data: { metadata: { user_id: user } },
    metadata: { user_id: user },
  },
  { idempotencyKey: nonce },
);
answers.checkout = [session.id, session.url, unix(session.expires_at)];
answers.expired = (await stripe.checkout.sessions.expire(session.id)).status;
answers.expired_again = await refusal(stripe.checkout.sessions.expire(session.id));
answers.ended_as = (await stripe.checkout.sessions.retrieve(session.id)).status;

const portal = await stripe.billingPortal.sessions.create({ customer, return_url: told.return_url });
answers.portal = portal.url;
answers.cancelled = (await stripe.subscriptions.update(subscription, { cancel_at_period_end: true })).id;

answers.owner = (await stripe.customers.retrieve(customer)).metadata.user_id;
const subscriptions = await all(stripe.subscriptions.list({ customer, status: 'all', limit: 100 }));
answers.subscriptions = subscriptions.map((found) => {
  const [item] = found.items.data;
  return [
    found.id, found.status, item.price.id, unix(item.current_period_start), unix(item.current_period_end),
    unix(found.cancel_at), unix(found.ended_at),
  ];
});

const charged = await stripe.charges.retrieve(charge, { expand: ['customer', 'refunds'] });
const payments = await all(
  stripe.invoicePayments.list({
    payment: { type: 'payment_intent', payment_intent: charged.payment_intent },
    limit: 100,
  }),
);
const invoice = await stripe.invoices.retrieve(payments[0].invoice);
const { subscription: paid } = invoice.parent.subscription_details;
const from = invoice.lines.data.map((line) => unix(line.period.start));
answers.refunded = [charged.refunded, charged.customer.metadata.user_id, paid, from];

const disputed = await stripe.disputes.retrieve(dispute);
const { customer: owner } = await stripe.charges.retrieve(disputed.charge, { expand: ['customer'] });
answers.disputed = [disputed.status, unix(disputed.created), owner.id];

answers.deleted = (await stripe.customers.retrieve(deleted)).deleted;
answers.missing = await refusal(stripe.customers.retrieve('cus_unknown'));
answers.nothing = await refusal(
  all(stripe.subscriptions.list({ customer: 'cus_unknown', status: 'all', limit: 100 })),
);
answers.stranger = await refusal(connect('sk_test_wrong').customers.retrieve(customer));

const undelivered = await all(
  stripe.events.list({
    delivery_success: false,
    types: told.kinds,
    created: { gte: told.since },
    limit: 100,
  }),
);
answers.undelivered = undelivered.map((event) => [event.id, event.type, unix(event.created)]);

const read = ({ body, signature }) => stripe.webhooks.constructEvent(body, signature, told.secret).id;
const [first] = told.notices;
const forged = () => read({ ...first, body: first.body.replace('evt', 'evt_') });
answers.notices = told.notices.map(read);
answers.thin = told.thin.map(({ body, signature }) => stripe.parseEventNotification(body, signature, told.secret).id);
answers.forged = await refusal(Promise.resolve().then(forged)).then(([type]) => type);

const signed = told.notices.map(({ body }) => ({
  body,
  signature: stripe.webhooks.generateTestHeaderString({ payload: body, secret: told.secret }),
}));
console.log(JSON.stringify({ answers, signed, unknown: [] }));
