// The search reads a leading "-" as "without". Here such words are options, so they are searched as words: --checkpoint-every.
const send = Worker.prototype.postMessage
Worker.prototype.postMessage = function (message, ...rest) {
  const query = message && message.type === 2
  return send.call(this, query ? { ...message, data: message.data.replace(/(^|\s)-+/g, "$1") } : message, ...rest)
}
