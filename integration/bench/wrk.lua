-- GET, or POST with 1 KiB, or a connection for each GET, when told so after --; at the end one line that a program can
-- read.
function init(args)
   wrk.headers["Host"] = "bench.test"
   if args[1] == "post" then
      wrk.method = "POST"
      wrk.body = string.rep("x", 1024)
   elseif args[1] == "close" then
      wrk.headers["Connection"] = "close"
   end
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format("counted %d requests in %d us, %d errors\n", summary.requests, summary.duration,
      e.connect + e.read + e.write + e.status + e.timeout))
end
