// A js-libp2p peer that does as it is told: one JSON array a line in, one JSON array a line out.
import './promise-with-resolvers.mjs'
import { createInterface } from 'node:readline'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { mdns } from '@libp2p/mdns'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [listen, useMdns] = process.argv.slice(2)
const ECHO = '/kowalski-test/echo/1'
const tell = (...what) => process.stdout.write(JSON.stringify(what) + '\n')

function tellingMdns (components) {
  const discovery = mdns({ interval: 500 })(components)
  discovery.addEventListener('peer', ({ detail }) =>
    tell('sighted', detail.id.toString(), detail.multiaddrs.map(String)))
  return discovery
}

const node = await createLibp2p({
  addresses: { listen: [listen] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  peerDiscovery: useMdns ? [tellingMdns] : [],
  connectionManager: { maxConnections: 10 },
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, globalSignaturePolicy: 'StrictSign' })
  }
})

async function send (stream, bytes) {
  for (let at = 0; at < bytes.length; at += 60000) {
    if (!stream.send(bytes.subarray(at, at + 60000))) await stream.onDrain()
  }
}

await node.handle(ECHO, async (stream) => {
  for await (const piece of stream) await send(stream, piece.subarray())
  await stream.close()
})

node.addEventListener('peer:connect', (event) => tell('connected', event.detail.toString()))
node.addEventListener('peer:disconnect', (event) => tell('disconnected', event.detail.toString()))
node.services.pubsub.addEventListener('message', ({ detail }) =>
  tell('heard', detail.from?.toString(), new TextDecoder().decode(detail.data)))

const commands = {
  dial: async (address) => { await node.dial(multiaddr(address)) },
  ping: async (address) => node.services.ping.ping(multiaddr(address)),
  protocols: async (address) => {
    const connection = await node.dial(multiaddr(address))
    return (await node.services.identify.identify(connection)).protocols
  },
  echo: async (address, size) => {
    const stream = await node.dialProtocol(multiaddr(address), ECHO)
    const sent = new Uint8Array(size).map((_, at) => at % 251)
    const sending = send(stream, sent).then(() => stream.close())
    let at = 0
    for await (const piece of stream) {
      for (const byte of piece.subarray()) {
        if (byte !== at++ % 251) throw new Error(`byte ${at} is wrong`)
      }
    }
    await sending
    return at
  },
  subscribe: async (topic) => { node.services.pubsub.subscribe(topic) },
  publish: async (topic, text) => {
    await node.services.pubsub.publish(topic, new TextEncoder().encode(text))
  }
}

tell('up', node.peerId.toString(), node.getMultiaddrs().map(String))
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line)
  commands[name](...args).then(
    (result) => tell('done', name, result ?? null),
    (error) => tell('failed', name, `${error.name}: ${error.message}`)
  )
}
await node.stop()
