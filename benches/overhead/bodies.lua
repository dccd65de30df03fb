-- wrk script: 16 request bodies in turn, prepared before the run, and one line of JSON at the end.
-- Argument: the common part of the bodies' file names (body-0 .. body-15).
local requests = {}
local turn = 0

function init(args)
  for number = 0, 15 do
    local file = assert(io.open(args[1] .. number, "rb"))
    local body = file:read("*a")
    file:close()
    requests[number] = wrk.format("POST", "/v1/chat/completions", { ["content-type"] = "application/json" }, body)
  end
end

function request()
  turn = (turn + 1) % 16
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format('RESULT {"requests":%d,"microseconds":%d,"failed":%d,"p50_us":%d,"p99_us":%d}',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
