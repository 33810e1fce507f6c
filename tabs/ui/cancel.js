// An event that is called off before the server has named it is called off once it has a name.
// Gradio asks at once, for the event `null`: the server refuses, and what was called off goes on.
(() => {
  const send = window.fetch;
  const unnamed = new Map(); // by function: the name that its event will have
  const awaited = (fn) => {
    if (!unnamed.has(fn)) {
      let tell;
      unnamed.set(fn, { name: new Promise((resolve) => (tell = resolve)), tell });
    }
    return unnamed.get(fn);
  };
  const bodyOf = (options) => (typeof options?.body === "string" ? JSON.parse(options.body) : {});
  const join = async (address, options) => {
    const { fn_index } = bodyOf(options), { tell } = awaited(fn_index);
    try {
      const answer = await send(address, options);
      if (answer.ok) tell((await answer.clone().json()).event_id);
      return answer;
    } finally {
      tell(null); // one that was not taken up needs no calling off
      setTimeout(() => unnamed.delete(fn_index)); // by then Gradio has read the answer
    }
  };
  const done = () => Response.json({ success: true });
  const cancel = async (address, options) => {
    const body = bodyOf(options);
    body.event_id ??= await awaited(body.fn_index).name;
    return body.event_id ? send(address, { ...options, body: JSON.stringify(body) }) : done();
  };
  window.fetch = async (address, options) => {
    const { pathname } = new URL(address?.url ?? address, location.href);
    if (pathname.endsWith("/queue/join")) return join(address, options);
    if (pathname.endsWith("/gradio_api/cancel")) return cancel(address, options);
    // Asked after each `cancel`, with the same name; the server does nothing then.
    if (pathname.endsWith("/gradio_api/reset")) return done();
    return send(address, options);
  };
})();
