// A browser starts no worker in a page that was opened from the disk; the search needs one. There, and only there, the
// worker's script runs in a hidden frame of the page, with the same messages to and fro.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow, write = frame.contentDocument;
      inside.importScripts = (...urls) => urls.forEach(each => write.write(`<script src="${each}"><\/script>`));
      inside.postMessage = data => setTimeout(() => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      });
      const script = write.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => {
        this.deliver = data => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
        this.waiting.splice(0).forEach(this.deliver);
      };
      write.head.append(script);
      this.terminate = () => frame.remove();
    }

    postMessage(data) {
      if (this.deliver) setTimeout(() => this.deliver(data));
      else this.waiting.push(data);
    }
  };
}
