-- The load for wrk: requests of 1,000 sessions in turn, with the session key in the session-id header and in the body.
-- BODY names a file with the body, which contains a prompt_cache_key; it is empty for GET. The output is one line of JSON.
local path = os.getenv("BODY") or ""
local marker = '"prompt_cache_key":"'
local most = 64 * 1024 * 1024
local requests, at = {}, 0

local function halves()
  local file = assert(io.open(path, "rb"))
  local body = file:read("*a")
  file:close()
  local start, stop = body:find(marker, 1, true)
  assert(start, "no prompt_cache_key in " .. path)
  return body:sub(1, stop), body:sub(body:find('"', stop + 1, true), -1), #body
end

function init()
  local sessions, before, after, size = 1000, nil, nil, 0
  if path ~= "" then
    before, after, size = halves()
    sessions = math.max(1, math.min(sessions, math.floor(most / size)))
  end
  for number = 1, sessions do
    local key = string.format("0199a213-81c0-7800-8aa1-%012x", number)
    local headers = { ["Host"] = "127.0.0.1", ["Authorization"] = "Bearer sk-test", ["session-id"] = key }
    if before then
      headers["Content-Type"] = "application/json"
      requests[number] = wrk.format("POST", "/v1/responses", headers, before .. key .. after)
    else
      requests[number] = wrk.format("GET", "/v1/files", headers)
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"p50":%d,"p99":%d,"p999":%d,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
