-- The shop's own tables, in a schema of their own. Running this again changes nothing.
create schema if not exists storefront;

create table if not exists storefront.products (
  id          int primary key,
  name        text not null,
  icon        text not null,
  price_cents int not null check (price_cents > 0),
  stock       int not null
);

create table if not exists storefront.orders (
  id          uuid primary key default gen_random_uuid(),
  number      int generated always as identity unique,
  customer    text not null check (char_length(customer) between 1 and 80),
  total_cents int not null check (total_cents > 0),
  placed_at   timestamptz not null default now()
);

create table if not exists storefront.order_items (
  order_id    uuid not null references storefront.orders,
  product_id  int not null references storefront.products,
  quantity    int not null check (quantity between 1 and 20),
  price_cents int not null,
  primary key (order_id, product_id)
);

-- Which job does which step of an order. Written with the order, in one transaction with the jobs themselves.
create table if not exists storefront.order_jobs (
  order_id uuid not null references storefront.orders,
  step     text not null check (step in ('payment', 'stock', 'receipt', 'invoice')),
  job_id   uuid not null unique,
  primary key (order_id, step)
);

-- One row each time a worker begins a step: shows retries, and where a job went after a crash.
create table if not exists storefront.step_starts (
  job_id  uuid not null,
  attempt int not null,
  pid     int not null,
  at      timestamptz not null default clock_timestamp()
);
create index if not exists step_starts_job on storefront.step_starts (job_id);

-- What the jobs do. There is no unique constraint on order_id, on purpose: `npm run demo:load` counts these rows, and
-- a constraint would hide a job that did its work twice.
create table if not exists storefront.payments (
  id           bigint generated always as identity primary key,
  order_id     uuid not null references storefront.orders,
  amount_cents int not null,
  reference    text not null,
  paid_at      timestamptz not null default now()
);
create index if not exists payments_order on storefront.payments (order_id);

-- Sales are negative and name their order; deliveries are positive and do not. Stock is always their sum.
create table if not exists storefront.stock_movements (
  id         bigint generated always as identity primary key,
  product_id int not null references storefront.products,
  order_id   uuid references storefront.orders,
  quantity   int not null,
  moved_at   timestamptz not null default now()
);
create index if not exists stock_movements_order on storefront.stock_movements (order_id);

create table if not exists storefront.receipts (
  id       bigint generated always as identity primary key,
  order_id uuid not null references storefront.orders,
  sent_at  timestamptz not null default now()
);
create index if not exists receipts_order on storefront.receipts (order_id);

create table if not exists storefront.invoices (
  id       bigint generated always as identity primary key,
  order_id uuid not null references storefront.orders,
  lines    jsonb not null,
  made_at  timestamptz not null default now()
);
create index if not exists invoices_order on storefront.invoices (order_id);

insert into storefront.products (id, name, icon, price_cents, stock) values
  (1, 'House beans, 500 g', 'beans', 1450, 0),
  (2, 'Pour-over kettle', 'kettle', 6900, 0),
  (3, 'Hand grinder', 'grinder', 8500, 0),
  (4, 'Paper filters, 100', 'filter', 650, 0),
  (5, 'Stoneware mug', 'mug', 1800, 0),
  (6, 'Brewing scale', 'scale', 3900, 0)
on conflict (id) do nothing;

-- The first delivery. Also what keeps stock and movements equal if a run was cut short before it.
with empty as (
  select id from storefront.products p
  where not exists (select from storefront.stock_movements m where m.product_id = p.id)
), delivered as (
  insert into storefront.stock_movements (product_id, quantity) select id, 200 from empty returning product_id, quantity
)
update storefront.products p set stock = stock + quantity from delivered where p.id = product_id;
