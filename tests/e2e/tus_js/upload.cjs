// Uploads a file with tus-js-client, aborts once and resumes, and prints the job's id.
// Usage: node upload.cjs ENDPOINT TOKEN FILE
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

function resume(url) {
  const second = new tus.Upload(fs.createReadStream(path), {
    ...options,
    uploadUrl: url,
    onSuccess({ lastResponse }) {
      console.log(lastResponse.getHeader('Mp3burst-Job'))
    },
  })
  second.start()
}

const first = new tus.Upload(fs.createReadStream(path), {
  ...options,
  async onChunkComplete(_, accepted) {
    if (accepted < 300000) return
    await first.abort()
    resume(first.url)
  },
})
first.start()
