/* The systems by name. Peers are loaded from the folder where they were installed for this run. */
export const peerNames = ['graphile-worker', 'pg-boss']
export const everySystem = ['forge', 'plain SQL', ...peerNames]

export async function loadSystem(name, peersFolder) {
  if (name === 'forge') return (await import('./forge.mjs')).default
  if (name === 'plain SQL') return (await import('./plain.mjs')).default
  const { loadPeer } = await import('./peers.mjs')
  return loadPeer(name, peersFolder)
}
