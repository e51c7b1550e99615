-- What wrk sends: the bodies of BENCH_BODIES (one a line) in turn, with BENCH_TOKEN as bearer if there is one.
-- What it came to is the last line of the output, as JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local token = os.getenv("BENCH_TOKEN")
if token and token ~= "" then
  wrk.headers["Authorization"] = "Bearer " .. token
end

local requests = {}
local turn = 0

function init()
  for body in os.getenv("BENCH_BODIES"):gmatch("[^\n]+") do
    requests[#requests + 1] = wrk.format(nil, nil, nil, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout + summary.errors.status
  io.write(string.format('\n{"requests": %d, "micros": %d, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors))
end
