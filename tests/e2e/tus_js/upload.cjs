// Uploads a file by tus-js-client, and breaks off once: node upload.cjs ENDPOINT TOKEN FILE; prints the job.
const fs = require('node:fs')
const tus = require('tus-js-client')

const [endpoint, token, path] = process.argv.slice(2)
const size = fs.statSync(path).size
const options = {
  endpoint,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { filename: 'Grüße.wav', filetype: 'audio/wav', bitrate: '64k' },
  chunkSize: 200001,
  uploadSize: size,
  uploadDataDuringCreation: true,
  retryDelays: [0, 200, 1000, 3000],
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
}

function goOn(url) {
  const again = new tus.Upload(fs.createReadStream(path), {
    ...options,
    uploadUrl: url,
    onSuccess({ lastResponse }) {
      console.log(lastResponse.getHeader('Mp3burst-Job'))
    },
  })
  again.start()
}

const begun = new tus.Upload(fs.createReadStream(path), {
  ...options,
  async onChunkComplete(_, accepted) {
    if (accepted < 300000) return
    await begun.abort()
    goOn(begun.url)
  },
})
begun.start()
