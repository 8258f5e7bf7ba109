import { expect, inject, it } from 'vitest'
import { useDatabase } from '../support/database.js'
import { setup } from '../support/forge.js'

const database = useDatabase()

it('writes as the role under test, on every one of its own connections', async () => {
  await database.query(`
    create table wrote (name text not null); grant all on wrote to public;
    create function note() returns trigger language plpgsql as $$
      begin insert into public.wrote values (current_user); return null; end $$;
    create trigger note_job after insert or update or delete on forge.job for each statement execute function note();
    create trigger note_node after insert or update on forge.node for each statement execute function note();`)
  const { forge, attach } = setup(database)
  const job = forge.job('who', { run: () => null })
  await using _node = await attach({ lease: { ms: 900, renewMs: 300 } })
  await (await job.enqueue({})).result()
  const rows = await database.query<{ name: string }>('select distinct name from wrote')
  const [owner] = await database.query<{ name: string }>('select current_user as name')
  expect(rows).toEqual([{ name: inject('forgeDatabases').runtimeRole ?? owner?.name }])
})
